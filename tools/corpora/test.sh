#!/bin/sh
# Every index at its defaults over both corpora (make corpora-test): test.py says what must hold.
set -eu
cd "$(dirname "$0")/../.."
# The Makefile's flags are for the notebooks: what is measured is an ordinary release build.
unset RUSTFLAGS CARGO_BUILD_TARGET
exec "${PYTHON:-python3}" tools/corpora/test.py data/cache/corpora data/results \
    cargo run --quiet --release --no-default-features --features cli --bin measure --
