FROM alpine
CMD ["a", "b"
CMD ['a', 'b']
CMD [ "a" , "\u00e9\n" ]
CMD ["a"] trailing
ENTRYPOINT []
CMD 
RUN [ -f /x ] && true
CMD    ["x"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
VOLUME ["/a b", "/c"]
VOLUME /d /e
COPY ["a b", "c", "/d/"]
COPY ["a", /b]
