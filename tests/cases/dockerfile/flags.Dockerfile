FROM alpine AS a
COPY --from=a --chown=1000:$GID --chmod=755 --link --exclude=*.md --exclude="a b" --parents=false /x /y /z/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d --keep-git-dir=true --unpack https://e.x/y /z
RUN --mount=type=cache,target=/root/.npm,sharing=locked --mount=type=bind,from=a,source=/x,target=/y --network=none --security=insecure npm ci
RUN -- --version
HEALTHCHECK --interval=1m30s --timeout=3s --start-period=5s --start-interval=1s --retries=5 CMD ["curl", "-f", "http://localhost/"]
HEALTHCHECK none
healthcheck cmd curl -f http://x || exit 1
