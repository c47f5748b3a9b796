# shellcheck shell=bash

harvest_pack() {
    [ $# -eq 2 ] || die "pack needs a folder and a format"
    local folder=$1 format=$2 packer archive kind
    case $format in
        gz) packer=gzip ;;
        xz) packer=xz ;;
        bz2) packer=bzip2 ;;
        zip)
            archive=$work/harvest.zip
            (cd "$folder" && zip -q -r "$archive" .)
            unzip -q -d "$work/back" "$archive"
            ;;
        *) die "no such format: $format" ;;
    esac
    if [ "$format" != zip ]; then
        archive=$work/harvest.tar.$format
        tar -C "$folder" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - . | "$packer" -9 -c >"$archive"
        mkdir "$work/back"
        "$packer" -d -c "$archive" | tar -C "$work/back" -xf -
    fi
    diff -r "$folder" "$work/back" >&2 || die "the archive does not hold what was packed"
    (cd "$folder" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$work/before"
    (cd "$work/back" && sha256sum --quiet --check "$work/before") || die "checksums differ"
    kind=$(file --brief --mime-type "$archive")
    printf '%s %s files=%d\n' "$format" "$kind" "$(wc -l <"$work/before")"
}
