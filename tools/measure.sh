#!/bin/sh
# The record that the notebooks read.
#
#   tools/measure.sh [record] [growth] [tuned]    our indexes (make measure)
#   tools/measure.sh peers                        the real libraries, in turns with ours (make peers)
#   tools/measure.sh sift                         our indexes on a million descriptors (make measure-sift)
#   tools/measure.sh sift_peers                   the handout's libraries on them (make peers-sift)
#
# N_QUERIES: how many queries to ask (1000; 10,000 of the descriptors, as in the handout's table).
# MEASURE: a program to measure with, built before. For sift: ONLY=hnsw,ivf_flat.
# For peers: DATA="pixels features-128", ONLY=hnswlib,scann. For sift_peers: ONLY=faiss_ivf, and PEERS_CACHE, where built indexes are kept (data/cache/peers).
#
# A file of the record gets its new rows when all of them are there, so that an interruption loses
# nothing. They take the place of the rows of the same indexes; what is not measured again stays.
set -eu
cd "$(dirname "$0")/.."
# The Makefile's flags are for the notebooks: what is measured is an ordinary release build.
unset RUSTFLAGS CARGO_BUILD_TARGET
results=data/results
queries=${N_QUERIES:-1000}
program=${MEASURE:-cargo run --quiet --release --no-default-features --features cli,net --bin measure --}

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

# A million SIFT descriptors, and fewer of them for how the cost grows (60,000 are as many as the images).
# Builds are on all threads, batches on all and on one.
sift() {
    sift_names
    sift_index brute_force ''
    sift_index va_file ''
    # The handout's 16384 lists too; a smaller base has no use for so many.
    probes='nprobe=4,8,16,32,64,128,256'
    sift_index ivf_flat "$probes" "nlist=16384; $probes"
    sift_index ivf_pq 'nprobe=8,16,32,64,128,256; refine=10,40'
    sift_index hnsw 'ef_search=10,20,40,80,160,320,640'
    sift_index quantized_graph 'epsilon=-0.05,-0.02,0,0.02,0.05,0.1,0.2'
}

# The files, what the record calls them, and how many queries are asked.
sift_names() {
    corpora=data/cache/corpora
    [ -e "$corpora/sift-1m.json" ] || { echo 'The descriptors are missing: make sift makes them' >&2; exit 1; }
    base=$corpora/sift-1m-base.npy
    asked=$corpora/sift-1m-queries.npy
    # It tells where they come from: sift-1m, or sift-1m-debian.
    name=$(sed -n 's/.*"name": "\(.*\)".*/\1/p' "$corpora/sift-1m.json")
    queries=${N_QUERIES:-10000}
}

# sift_index INDEX SWEEP [SWEEP OF THE MILLION ALONE]
sift_index() {
    case ",${ONLY:-$1}," in *",$1,"*) ;; *) return 0 ;; esac
    begin sift-1m
    sift_rows 10000,60000,100000,1000000 "$1" "$2"
    [ $# -lt 3 ] || sift_rows 1000000 "$1" "$3"
    finish sift-1m
}

# sift_rows SIZES INDEX SWEEP
sift_rows() {
    measure sift-1m --threads 0 --also-threads 1 --n-base "$1" --index "$2" --sweep "$3" --k 1,10 \
        --name "$name" --data "$base" --queries "$asked"
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

# The same sizes, k = 1 and 10, on one thread and on all. A library's rows replace all that the record
# has of it, so the sizes are measured apart and put there together.
sift_peers() {
    sift_names
    ready_for_peers
    for size in 10000 60000 100000 1000000; do
        $program --threads 0 --n-base "$size" --k 1,10 --name "$name" --n-queries "$queries" \
            --data "$base" --queries "$asked" --export "$folder/$size"
        "$venv/bin/python" benches/peers --table sift1m --data "$folder/$size" --name "$name" \
            --cache "${PEERS_CACHE:-data/cache/peers}" \
            --out "$folder/$size.csv" --measure "$program" ${ONLY:+--only "$ONLY"}
        rm -r "$folder/$size"
        # If no library is installed there is no file. One header, then the rows of all sizes.
        [ -e "$folder/$size.csv" ] || continue
        [ -e "$folder/all.csv" ] || head -n 1 "$folder/$size.csv" > "$folder/all.csv"
        tail -n +2 "$folder/$size.csv" >> "$folder/all.csv"
    done
    [ ! -e "$folder/all.csv" ] || $program --replace-from "$folder/all.csv" --out "$results/sift-1m.csv"
}

if [ $# -eq 0 ]; then set -- record growth tuned; fi
for part in "$@"; do
    case $part in
        record | growth | tuned | peers | sift | sift_peers) "$part" ;;
        *) echo "$part: expected record, growth, tuned, peers, sift or sift_peers" >&2; exit 2 ;;
    esac
done
