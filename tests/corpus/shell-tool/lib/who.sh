# shellcheck shell=bash

harvest_who() {
    printf 'user=%s group=%s home=%s\n' "$(id --user --name)" "$(id --group --name)" "$(getent passwd "$(id --user)" | cut -d : -f 6)"
    hostname --short >/dev/null || die "no host name"
    nproc | xargs printf 'on %d processors\n' | grep --only-matching 'on [1-9]'
}
