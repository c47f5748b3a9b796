# shellcheck shell=bash

harvest_seal() {
    [ $# -eq 1 ] || die "seal needs a text"
    printf '%s' "$1" >"$work/plain"
    head -c 24 /dev/urandom | base64 >"$work/key"
    openssl enc -aes-256-cbc -pbkdf2 -pass "file:$work/key" -in "$work/plain" -out "$work/sealed"
    openssl enc -d -aes-256-cbc -pbkdf2 -pass "file:$work/key" -in "$work/sealed" -out "$work/opened"
    cmp "$work/plain" "$work/opened" || die "what was opened is not what was sealed"
    printf 'sealed %d bytes, sha256 %s\n' "$(stat -c %s "$work/plain")" "$(openssl dgst -sha256 -r "$work/plain" | cut -d ' ' -f 1)"
}
