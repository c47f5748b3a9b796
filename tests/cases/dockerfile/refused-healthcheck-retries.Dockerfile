FROM alpine
HEALTHCHECK --retries=many CMD true
