#!/bin/sh
# The record that the notebooks read: `make measure`. Each file is replaced when it is whole, so that an interruption loses nothing.
set -eu
cd "$(dirname "$0")/.."
results=data/results
queries=${N_QUERIES:-1000}

# measure FILE ARGUMENTS...: adds rows to FILE's successor.
measure() {
    file=$1
    shift
    cargo run --quiet --release --bin measure -- --n-queries "$queries" --out "$results/$file.new" "$@"
}
begin() { rm -f "$results/$1.new"; }
finish() { mv "$results/$1.new" "$results/$1"; }

cargo build --release --bin measure
# Every index over its whole sweep, for 1, 10 and 100 neighbours.
for data in pixels features-16 features-32 features-128; do
    begin "$data.csv"
    measure "$data.csv" --data "$data" --k 1,10,100
    finish "$data.csv"
done
# How the cost grows with the number of vectors and with their dimension.
begin growth.csv
measure growth.csv --data pixels --sweep query --n-base 7500,15000,30000,60000
for width in 8 16 32 64 128 256; do
    measure growth.csv --data "features-$width" --sweep query
done
finish growth.csv
# What tuning for a recall gives on queries that it has not seen.
begin tuned.csv
for data in pixels features-128; do
    measure tuned.csv --data "$data" --recall 0.90,0.95,0.99
done
finish tuned.csv
