FROM alpine
COPY --link=maybe /x /y
