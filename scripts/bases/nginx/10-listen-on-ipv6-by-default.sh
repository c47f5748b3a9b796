#!/bin/sh
# Listen on IPv6 too, where the kernel has it and the default configuration is untouched.
set -e
conf=etc/nginx/conf.d/default.conf
[ -f "/proc/net/if_inet6" ] || exit 0
[ -w "/$conf" ] || exit 0
grep -q "listen  *\[::]:80;" "/$conf" && exit 0
grep -q "^    listen       80;$" "/$conf" || exit 0
sed -i -E 's,listen       80;,listen       80;\n    listen  [::]:80;,' "/$conf"
exit 0
