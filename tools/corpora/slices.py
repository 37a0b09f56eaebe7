"""Small parts of both corpora for the conformance tests, kept in git.

usage: slices.py FOLDER_OF_THE_CORPORA OUT_FOLDER
"""
import sys
from pathlib import Path

import numpy as np

from common import save_array

# Rows of the base and queries: 3.2 MB and 0.7 MB.
SIZES = {"embeddings": (2000, 100), "sift": (5000, 100)}


def main(corpora, out):
    for corpus, (n_base, n_queries) in SIZES.items():
        # The corpora are in random order, so the first rows are a sample.
        base = np.load(Path(corpora) / f"{corpus}-base.npy", mmap_mode="r")[:n_base]
        queries = np.load(Path(corpora) / f"{corpus}-queries.npy", mmap_mode="r")[:n_queries]
        save_array(Path(out) / f"{corpus}.npy", base)
        save_array(Path(out) / f"{corpus}-queries.npy", queries)


if __name__ == "__main__":
    main(*sys.argv[1:])
