FROM alpine
RUN apk add \
    # the compiler
    gcc \

    # and make
\
    make \  
  && true
RUN x \
#y
  z
   # indented comment
   ENV A=1
