FROM alpine
RUN --mount=from=$X,target=/y true
