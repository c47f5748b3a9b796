FROM alpine
USER --x y
