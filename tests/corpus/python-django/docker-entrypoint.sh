#!/bin/sh
# Bring the database up to date, then become what the container was asked to run.
set -e

: "${DATA_DIR:=/data}"
export DATA_DIR

case "$1" in
gunicorn)
    echo "entrypoint: preparing $(basename "$DATA_DIR") as $(id -un)"
    python manage.py migrate --noinput --verbosity 0
    python manage.py rota_sample
    ;;
esac

exec "$@"
