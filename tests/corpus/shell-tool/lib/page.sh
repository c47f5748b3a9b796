# shellcheck shell=bash
. "$libdir/report.sh"

harvest_page() {
    local rows
    harvest_report "$@" >"$work/report.json"
    rows=$(jq -r '.stations[] | "<tr><td>\(.station)</td><td>\(.mean_celsius)</td><td>\(.rain)</td></tr>"' "$work/report.json")
    WETTEST=$(jq -r .wettest "$work/report.json") ROWS=$rows envsubst '$WETTEST $ROWS' <"$sharedir/templates/page.html" >"$work/page.html"
    xmllint --noout "$work/page.html" || die "the page is not well-formed"
    cat "$work/page.html"
}
