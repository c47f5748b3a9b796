from alpine as x
run true
Copy . .
eXpose 80 443/tcp 53/udp 8000-8010
stopsignal SIGTERM
user 1000:1000
workdir /a b/c
maintainer Me <me@example.org>
volume /x
