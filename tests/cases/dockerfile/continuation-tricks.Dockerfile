FROM alpine
RUN echo a\\
RUN echo b \ 	
  c
RUN \
\
  d
\
RUN e
  \

RUN f
