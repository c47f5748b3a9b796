FROM alpine AS Base
FROM base as Tools-1.0_x
FROM TOOLS-1.0_x
COPY --from=Base /a /b
COPY --from=1 /a /b
