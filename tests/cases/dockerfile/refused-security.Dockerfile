FROM alpine
RUN --security=loose true
