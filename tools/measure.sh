#!/bin/sh
# The record that the notebooks read. `tools/measure.sh` (make measure): our indexes.
# `tools/measure.sh peers` (make peers): the real libraries, in turns with ours.
# A file of the record is replaced when its successor is whole, so that an interruption loses nothing;
# what is not measured again stays in it.
set -eu
cd "$(dirname "$0")/.."
# The Makefile's flags are for the notebooks: what is measured is an ordinary release build.
unset RUSTFLAGS CARGO_BUILD_TARGET
results=data/results
measure='cargo run --quiet --release --no-default-features --features cli,files,net --bin measure --'

# measure FILE ARGUMENTS...: adds rows to FILE's successor.
measure() {
    file=$1
    shift
    $measure --n-queries "${N_QUERIES:-1000}" --out "$results/$file.new" "$@"
}
begin() { rm -f "$results/$1.new"; }
# The rows of other indexes (the libraries') are kept.
finish() {
    if [ -e "$results/$1" ]; then
        awk -F, 'NR == FNR { measured[$1]; next } !($1 in measured)' "$results/$1.new" "$results/$1" >> "$results/$1.new"
    fi
    mv "$results/$1.new" "$results/$1"
}

record() {
    # Every index over its whole sweep, for 1, 10 and 100 neighbours.
    for data in pixels features-16 features-32 features-128; do
        begin "$data.csv"
        measure "$data.csv" --data "$data" --k 1,10,100
        finish "$data.csv"
    done
}

growth() {
    # How the cost grows with the number of vectors and with their dimension.
    begin growth.csv
    measure growth.csv --data pixels --sweep query --n-base 7500,15000,30000,60000
    for width in 8 16 32 64 128 256; do
        measure growth.csv --data "features-$width" --sweep query
    done
    finish growth.csv
}

tuned() {
    # What tuning for a recall gives on queries that it has not seen.
    begin tuned.csv
    for data in pixels features-128; do
        measure tuned.csv --data "$data" --recall 0.90,0.95,0.99
    done
    finish tuned.csv
}

peers() {
    venv=.venv-peers
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    # One by one: a library that cannot be installed here is named, and left out.
    while read -r library; do
        case $library in '' | '#'*) continue ;; esac
        "$venv/bin/pip" install --quiet --disable-pip-version-check "$library" || echo "not installed: $library"
    done < benches/peers.txt
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    for data in ${DATA:-pixels features-128}; do
        $measure --data "$data" --k 1,10,100 --n-queries "${N_QUERIES:-1000}" --export "$folder"
        "$venv/bin/python" benches/peers.py --data "$folder" --name "$data" --out "$results/$data.csv" \
            --ours "$measure" ${ONLY:+--only "$ONLY"}
    done
}

if [ $# -eq 0 ]; then set -- record growth tuned; fi
for part in "$@"; do
    case $part in
        record | growth | tuned | peers) "$part" ;;
        *) echo "$part: expected record, growth, tuned or peers" >&2; exit 2 ;;
    esac
done
