FROM alpine
ADD ["a"]
