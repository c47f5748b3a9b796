# escape=\
FROM alpine
RUN a \
  # c
  b

RUN <<EOF
x
EOF
CMD ["a"]
