FROM alpine
ONBUILD RUN <<EOF
echo later
EOF
ONBUILD COPY --chown=1:1 . /app
onbuild add ["a b", "/c"]
