# shellcheck shell=bash
# A server of our own on loopback: curl must refuse it by the system's authorities, and take it by its certificate.

harvest_fetch() {
    local port=${HARVEST_PORT:-18147} server status=0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
    echo "rain, mostly" >"$work/forecast.txt"
    (cd "$work" && exec openssl s_server -quiet -accept "$port" -key key.pem -cert cert.pem -WWW >/dev/null 2>&1) &
    server=$!
    curl --silent --show-error --retry 10 --retry-all-errors --retry-delay 1 --cacert "$work/cert.pem" \
        "https://localhost:$port/forecast.txt" || status=$?
    [ "$status" -eq 0 ] || die "curl exit status $status with the certificate"
    curl --silent "https://localhost:$port/forecast.txt" >/dev/null || status=$?
    kill "$server"
    wait "$server" 2>/dev/null || true
    [ "$status" -eq 60 ] || die "curl exit status $status without the certificate"
    echo "refused without its certificate"
    openssl verify /etc/ssl/certs/ISRG_Root_X1.pem
}
