FROM alpine
RUN true
RUN <<EOF
echo
EOF2
