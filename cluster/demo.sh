#!/bin/sh
# A cluster on this machine: shards of Fashion-MNIST, a scheduler, two executors, one query, and the
# same in one process. `make cluster-demo` builds the program and calls this. Everything that is
# started here is stopped when it ends, however it ends.
set -eu
program=${1:?the path of knn-cluster}
port=${PORT:-50050}
k=${K:-10}
room=$(mktemp -d)
started=
stop() {
    for process in $started; do kill "$process" 2>/dev/null || true; done
    wait
    rm -rf "$room"
}
trap stop EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$1"; }

say 'Fashion-MNIST as Parquet: 60,000 images in eight shards, 10,000 queries'
"$program" shard --data fashion-mnist --shards 8 --out "$room/base"
"$program" shard --data fashion-mnist-test --out "$room/queries"

say "A scheduler on port $port, two executors with one thread each"
"$program" scheduler --port "$port" 2>"$room/scheduler.log" &
started=$!
for executor in 1 2; do
    "$program" executor --scheduler "127.0.0.1:$port" --port $((port + 10 * executor)) --threads 1 \
        2>"$room/executor-$executor.log" &
    started="$started $!"
done
sleep 3
for process in $started; do
    kill -0 "$process" 2>/dev/null || { cat "$room"/*.log >&2; echo 'A server has not started.' >&2; exit 1; }
done

say 'The query on the cluster'
"$program" query --scheduler "http://127.0.0.1:$port" --base "$room/base" --queries "$room/queries" --k "$k" \
    --out "$room/cluster.parquet"

say 'The same in one process, with two threads'
"$program" query --local --threads 2 --base "$room/base" --queries "$room/queries" --k "$k" \
    --out "$room/local.parquet"

say 'Compared'
if cmp "$room/cluster.parquet" "$room/local.parquet"; then
    echo 'The two answers are the same, byte for byte.'
else
    echo 'The answers differ.' >&2
    exit 1
fi
