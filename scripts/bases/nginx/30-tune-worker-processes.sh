#!/bin/sh
# Set worker_processes to the number of CPUs, when asked to.
set -e
[ "${NGINX_ENTRYPOINT_WORKER_PROCESSES_AUTOTUNE:-}" ] || exit 0
touch /etc/nginx/nginx.conf 2>/dev/null || exit 0
sed -i.bak -r "s/^(worker_processes)(.*)$/\1 $(nproc);/" /etc/nginx/nginx.conf
