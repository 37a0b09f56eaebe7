"""Tables of vectors on which the benches measure, each with a known structure; the same ones on every machine.

    python benches/tables.py low_rank DIR    writes DIR/low_rank.npy and DIR/low_rank-queries.npy, for `measure --data --queries`
"""
import gzip
import os
import sys

import numpy as np

DATA = os.environ.get("FASHION_MNIST_DIR", "/usr/share/datasets/fashion-mnist")


def pixels(which):
    with gzip.open(f"{DATA}/{which}-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)


def low_rank(rng, rows, dim=384, rank=24):
    """Hidden variables of falling size, mixed, with noise: what learned embeddings look like. Of unit length."""
    mixing = np.random.default_rng(5).normal(size=(rank, dim)) / np.arange(1, rank + 1)[:, None] ** 0.7
    table = rng.normal(size=(rows, rank)) @ mixing + 0.05 * rng.normal(size=(rows, dim))
    return (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float32)


def relu(rng, rows, dim):
    """Ten classes on a few hidden variables each, through a random layer and ReLU: penultimate-layer-like features."""
    fixed = np.random.default_rng(6)
    centres, spread = fixed.normal(size=(10, 16)) * 2, fixed.normal(size=(10, 16, 16)) * 0.25
    layer = fixed.normal(size=(16, dim))
    label = rng.integers(0, 10, rows)
    hidden = centres[label] + np.einsum("nd,nde->ne", rng.normal(size=(rows, 16)), spread[label])
    return np.maximum(hidden @ layer + 0.05 * rng.normal(size=(rows, dim)), 0).astype(np.float32)


def noise(rng, rows, dim):
    """No structure at all: independent normal values."""
    return rng.normal(size=(rows, dim)).astype(np.float32)


def tables(name):
    """Base and queries."""
    a, b = np.random.default_rng(1), np.random.default_rng(2)
    if name == "pixels":
        return pixels("train"), pixels("t10k")
    if name == "pixels_float":
        return tuple(t.astype(np.float32) for t in tables("pixels"))
    if name == "low_rank":
        return low_rank(a, 60_000), low_rank(b, 2_000)
    kind, dim = name.split("-")
    return {"noise": noise, "relu": relu}[kind](a, 60_000, int(dim)), {"noise": noise, "relu": relu}[kind](b, 4_000, int(dim))


if __name__ == "__main__":
    name, folder = sys.argv[1:]
    for table, suffix in zip(tables(name), ("", "-queries")):
        np.save(f"{folder}/{name}{suffix}.npy", table)
