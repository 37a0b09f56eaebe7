#!/bin/sh
# The record that the notebooks read.
#
#   tools/measure.sh [record] [growth] [tuned]    our indexes (make measure)
#   tools/measure.sh peers                        the real libraries, in turns with ours (make peers)
#   tools/measure.sh sift_peers                   the libraries of the handout's table, a million rows
#
# N_QUERIES: how many queries to ask (1000). For peers: DATA="pixels features-128", ONLY=hnswlib,scann.
# For sift_peers: ONLY=faiss_ivf, and PEERS_CACHE, where built indexes are kept (data/cache/peers).
#
# A file of the record gets its new rows when all of them are there, so that an interruption loses
# nothing. They take the place of the rows of the same indexes; what is not measured again stays.
set -eu
cd "$(dirname "$0")/.."
# The Makefile's flags are for the notebooks: what is measured is an ordinary release build.
unset RUSTFLAGS CARGO_BUILD_TARGET
results=data/results
queries=${N_QUERIES:-1000}
program='cargo run --quiet --release --no-default-features --features cli,net --bin measure --'

begin() { rm -f "$results/$1.csv.new"; }
# measure FILE ARGUMENTS...: adds rows to what FILE will get.
measure() {
    file=$1
    shift
    $program --n-queries "$queries" --out "$results/$file.csv.new" "$@"
}
finish() {
    $program --replace-from "$results/$1.csv.new" --out "$results/$1.csv"
    rm "$results/$1.csv.new"
}

record() {
    # Every index over its whole sweep, for 1, 10 and 100 neighbours.
    for data in pixels features-16 features-32 features-128; do
        begin "$data"
        measure "$data" --data "$data" --k 1,10,100
        finish "$data"
    done
}

growth() {
    # How the cost grows with the number of vectors and with their dimension.
    begin growth
    measure growth --data pixels --sweep query --n-base 7500,15000,30000,60000
    for width in 8 16 32 64 128 256; do
        measure growth --data "features-$width" --sweep query
    done
    finish growth
}

tuned() {
    # What tuning for a recall gives on queries that it has not seen.
    begin tuned
    for data in pixels features-128; do
        measure tuned --data "$data" --recall 0.90,0.95,0.99
    done
    finish tuned
}

# What the peers run in, and a folder for the vectors that they are given.
ready_for_peers() {
    venv=.venv-peers
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    # One by one: a library that cannot be installed here is named, and left out.
    while read -r library options; do
        case $library in '' | '#'*) continue ;; esac
        # Without the options where they fail: an older or slower form of a library is better than none.
        for words in "$options $library" "$library" ''; do
            [ -n "$words" ] || { echo "not installed: $library"; break; }
            # shellcheck disable=SC2086 # they are words
            if "$venv/bin/pip" install --quiet --disable-pip-version-check $words; then break; fi
        done
    done < benches/peers.txt
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
}

peers() {
    ready_for_peers
    for data in ${DATA:-pixels features-128}; do
        $program --data "$data" --k 1,10,100 --n-queries "$queries" --export "$folder"
        "$venv/bin/python" benches/peers --data "$folder" --name "$data" \
            --out "$results/$data.csv" --measure "$program" ${ONLY:+--only "$ONLY"}
    done
}

# A million descriptors, ten thousand queries, k = 1 and 10: on one thread and on all.
sift_peers() {
    corpora=data/cache/corpora
    [ -e "$corpora/sift-1m.json" ] || { echo 'The descriptors are missing: make sift makes them' >&2; exit 1; }
    # What the record calls them tells where they come from.
    name=$(sed -n 's/.*"name": "\(.*\)".*/\1/p' "$corpora/sift-1m.json")
    ready_for_peers
    $program --data "$corpora/sift-1m-base.npy" --queries "$corpora/sift-1m-queries.npy" \
        --k 1,10 --n-queries "${N_QUERIES:-10000}" --export "$folder"
    "$venv/bin/python" benches/peers --table sift1m --data "$folder" --name "$name" \
        --cache "${PEERS_CACHE:-data/cache/peers}" \
        --out "$results/sift-1m.csv" --measure "$program" ${ONLY:+--only "$ONLY"}
}

if [ $# -eq 0 ]; then set -- record growth tuned; fi
for part in "$@"; do
    case $part in
        record | growth | tuned | peers | sift_peers) "$part" ;;
        *) echo "$part: expected record, growth, tuned, peers or sift_peers" >&2; exit 2 ;;
    esac
done
