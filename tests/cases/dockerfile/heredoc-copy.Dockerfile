FROM alpine
COPY <<a.txt <<"b.txt" /x/
A $HOME
a.txt
B
b.txt
COPY --chmod=0755 <<-EOF /run.sh
	#!/bin/sh
	echo hi
EOF
ADD 3<<FD /fd
fd
FD
