#!/bin/bash
# The memory that `measure` takes for a large file of vectors: tests/formats_memory.sh [gigabytes]
#
# Writes an .fvecs file of so many GB (2) of 128 floats and one of 64 queries to $TMPDIR, measures
# brute force over it in one batch, prints the greatest memory of the program beside what the index
# says it needs, and removes the files. It fails above 1.3 times that. Needs Linux, and a measure
# that was built before: cargo build --release --bin measure
set -euo pipefail
measure=${MEASURE:-target/release/measure}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 - "$folder" "${1:-2}" <<'PYTHON'
import random, struct, sys

folder, gigabytes = sys.argv[1], float(sys.argv[2])
dim, rows_of_a_piece = 128, 4096
random.seed(0)

def rows(count):
    """So many records, of which each value is a float between 1 and 2."""
    record = struct.pack("<I", dim)
    noise = random.randbytes(4 * dim * count)
    values = bytearray(noise)
    # Sign 0 and exponent 127; the 23 bits of the fraction stay random.
    values[3::4] = b"\x3f" * (dim * count)
    values[2::4] = bytes(byte | 0x80 for byte in noise[2::4])
    size = 4 * dim
    return b"".join(record + values[at : at + size] for at in range(0, len(values), size))

record_len = 4 + 4 * dim
pieces = round(gigabytes * 1e9 / (rows_of_a_piece * record_len))
# Eight random pieces, over and over. The first value of a row differs from piece to piece, so that
# no rows are equal.
random_pieces = [rows(rows_of_a_piece) for _ in range(8)]
with open(f"{folder}/base.fvecs", "wb") as file:
    for piece in range(pieces):
        content = bytearray(random_pieces[piece % 8])
        for row in range(rows_of_a_piece):
            at = row * record_len + 4
            content[at : at + 4] = struct.pack("<f", 1 + piece / pieces)
        file.write(content)
with open(f"{folder}/queries.fvecs", "wb") as file:
    file.write(rows(64))
PYTHON
FASHION_KNN_DATA=$folder python3 - "$measure" "$folder" <<'PYTHON'
import csv, resource, subprocess, sys

measure, folder = sys.argv[1:]
out = f"{folder}/out.csv"
subprocess.run(
    [measure, "--index", "brute_force", "--data", f"{folder}/base.fvecs",
     "--queries", f"{folder}/queries.fvecs", "--out", out],
    check=True,
)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
with open(out) as file:
    row = next(csv.DictReader(file))
vectors = int(row["n"]) * int(row["d"]) * 4
needs = int(row["memory_bytes"])
print(f"vectors {vectors / 1e9:.3f} GB, index {needs / 1e9:.3f} GB, peak {peak / 1e9:.3f} GB: "
      f"{peak / needs:.3f} of what the index needs, {peak / vectors:.3f} of the vectors")
sys.exit(peak > 1.3 * needs)
PYTHON
