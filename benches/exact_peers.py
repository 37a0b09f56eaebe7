"""Ours and FAISS IndexFlatL2 in turns, one thread, k = 10, on the tables of the bars of exact search; prints ratios.

    /path/to/venv/bin/python benches/exact_peers.py BINARY [--only pixels,low_rank,...] [--rounds 2]

BINARY is `target/release/examples/exact_speed`, from `cargo build --release --example exact_speed`. Close everything else while it runs.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time

from peers import environment

# FAISS's BLAS must be told the processor before it loads.
os.environ.update(environment.variables(1))

import faiss
import numpy as np
from tables import tables

DIR = os.path.join(tempfile.gettempdir(), "exact-tables")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--only", default="pixels,pixels_float,low_rank,noise-256,relu-128,relu-32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--check", type=int, default=0, help="also compare so many queries with the definition")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    os.makedirs(DIR, exist_ok=True)
    for name in args.only.split(","):
        base, query = tables(name)
        kind = "u8" if base.dtype == np.uint8 else "f32"
        paths = [f"{DIR}/{name}.{part}.{kind}" for part in ("base", "query")]
        for path, table in zip(paths, (base, query)):
            table.tofile(path)
        flat = faiss.IndexFlatL2(base.shape[1])
        flat.add(np.ascontiguousarray(base, np.float32))
        floats = np.ascontiguousarray(query, np.float32)

        def ours(index, count, *more):
            command = [args.binary, "--base", paths[0], "--query", paths[1], "--dim", str(base.shape[1])]
            command += ["--index", index, "--queries", str(count), *more]
            return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

        best, last = {}, {}
        def keep(key, qps):
            best[key] = max(best.get(key, 0), qps)

        for _ in range(args.rounds):
            start = time.perf_counter()
            flat.search(floats[:2_000], 10)
            keep("faiss", 2_000 / (time.perf_counter() - start))
            start = time.perf_counter()
            for row in range(60):
                flat.search(floats[row:row + 1], 10)
            keep("faiss_one", 60 / (time.perf_counter() - start))
            keep("brute", ours("brute_force", 2_000)["qps"])
            keep("brute_one", ours("brute_force", 100, "--one")["qps"])
            last = ours("va_file", 10_000, "--one")
            keep("va_one", last["qps"])
            keep("va_batch", ours("va_file", 2_000)["qps"])
        print(name, {key: round(value, 1) for key, value in best.items()})
        print("  brute/faiss %.2f  brute_one/faiss_one %.2f  va_one/faiss %.2f  va_one/brute %.2f  va_batch/brute %.2f" % (
            best["brute"] / best["faiss"], best["brute_one"] / best["faiss_one"], best["va_one"] / best["faiss"],
            best["va_one"] / best["brute"], best["va_batch"] / best["brute"]))
        print("  p50 %.0f us  p99 %.0f us  build %.2f s  memory x%.3f  %s" % (
            last["p50_us"] or 0, last["p99_us"] or 0, last["build_s"], last["memory_ratio"], last["params"]))
        if args.check:
            for k in ("1", "10", "100"):
                print("  exact, k =", k, ours("va_file", args.check, "--one", "--check", "--k", k)["exact"], flush=True)


if __name__ == "__main__":
    main()
