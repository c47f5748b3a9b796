FROM alpine AS a
COPY --from=nginx:1.25 /etc/nginx/nginx.conf /x
RUN --mount=from=busybox:musl,target=/bb /bb/bin/true
