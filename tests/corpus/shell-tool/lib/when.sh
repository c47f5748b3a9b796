# shellcheck shell=bash

harvest_when() {
    [ $# -eq 2 ] || die "when needs an instant and a zone"
    [ -e "/usr/share/zoneinfo/$2" ] || die "no such zone: $2"
    env TZ="$2" date --date="@$1" '+%F %T %Z'
    printf 'days since: %s\n' "$(echo "scale=3; $1 / 86400" | bc)"
}
