FROM alpine
COPY /x <<EOF
a
EOF
