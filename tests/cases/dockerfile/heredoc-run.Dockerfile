# syntax=docker/dockerfile:1
FROM debian AS base
RUN <<EOF
apt-get update
# not a comment of the file
FROM nothing
EOF
RUN <<-'TAB' cat
		indented $HOME
	TAB
RUN cat <<ONE >/a && cat <<"TWO" >/b
first
ONE
second $X
TWO
CMD ["bash"]
