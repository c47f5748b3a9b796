# A local repository with all that `mvn package` uses, and the project told to work from it.
mvn -q -B -Dmaven.repo.local="$PWD/.m2" package
rm -rf target
mkdir -p .mvn
printf -- '-o\n-Dmaven.repo.local=.m2\n' > .mvn/maven.config
