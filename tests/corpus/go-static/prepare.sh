# The modules of go.mod as a module proxy's folder, so that `go mod download` finds them in the context.
GOFLAGS=-modcacherw GOMODCACHE="$PWD/.modules" GOTOOLCHAIN=local go mod download
mv .modules/cache/download .goproxy
rm -rf .modules .goproxy/sumdb
