# shellcheck shell=bash

harvest_history() {
    [ $# -eq 1 ] || die "history needs a folder"
    cp -r "$1" "$work/repository"
    cd "$work/repository" || exit
    export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
    git init --quiet --initial-branch=main
    git config user.name Harvest
    git config user.email harvest@example.com
    git add --all
    git commit --quiet --message 'Readings as they came'
    local first
    first=$(find . -name '*.csv' | sort | head -n 1)
    printf '2024-01-03;1,5;0,0\n' >>"$first"
    git commit --quiet --all --message 'One reading more'
    git bundle create --quiet "$work/harvest.bundle" main
    git clone --quiet --branch main "$work/harvest.bundle" "$work/clone"
    git -C "$work/clone" log --format='%s' --shortstat
    git -C "$work/clone" fsck --strict
}
