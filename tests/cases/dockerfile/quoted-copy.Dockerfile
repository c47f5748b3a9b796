FROM alpine
COPY "a b" /c
COPY a\ b /c
ADD --chown="a b":c x y
