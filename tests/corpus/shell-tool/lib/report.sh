# shellcheck shell=bash
# Readings are CSV files, one a station: time,celsius,millimetres. Decimal commas occur.

readings() { # FOLDER → station,time,celsius,millimetres
    local file station
    find "$1" -name '*.csv' -print0 | sort -z | while IFS= read -r -d '' file; do
        station=$(basename "$file" .csv)
        iconv -f ISO-8859-1 -t UTF-8 "$file" |
            tr -d '\r' |
            sed -e '1d' -e '/^#/d' -e 's/;/|/g' -e 's/,/./g' -e 's/|/,/g' |
            awk -F, -v OFS=, -v station="$station" 'NF == 3 { print station, $1, $2, $3 }'
    done
}

harvest_report() {
    local folder=${1:-$sharedir/samples}
    [ -d "$folder" ] || die "no folder $folder"
    readings "$folder" >"$work/readings.csv"
    sqlite3 -batch "$work/harvest.db" <<'SQL'
CREATE TABLE reading (station TEXT, time TEXT, celsius REAL, millimetres REAL);
SQL
    sqlite3 -batch "$work/harvest.db" -cmd '.mode csv' ".import $work/readings.csv reading"
    sqlite3 -batch -json "$work/harvest.db" '
        SELECT station, count(*) AS readings, round(avg(celsius), 2) AS mean_celsius, sum(millimetres) AS rain
        FROM reading GROUP BY station ORDER BY station' |
        jq --sort-keys '{stations: ., total_rain: (map(.rain) | add), wettest: (max_by(.rain) | .station)}'
}
