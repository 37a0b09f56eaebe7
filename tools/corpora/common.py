"""What the corpora share: the seed, queries held out, files written whole."""
import json
from pathlib import Path

import numpy as np

SEED = 15


def split_queries(rows, n_queries):
    """Distinct rows in random order: all but n_queries as the base, and those as queries."""
    rows = np.unique(rows, axis=0)
    np.random.default_rng(SEED).shuffle(rows)
    return rows[n_queries:], rows[:n_queries]


def save(folder, name, base, queries):
    """Writes NAME-base.npy and NAME-queries.npy."""
    # What it says is of the rows that are replaced. The next save_origin says it of these.
    (Path(folder) / f"{name}.json").unlink(missing_ok=True)
    for part, rows in (("queries", queries), ("base", base)):
        save_array(Path(folder) / f"{name}-{part}.npy", rows)


def save_array(path, rows):
    """Writes the array beside its place, then renames it: a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    with open(beside, "wb") as file:
        np.save(file, np.ascontiguousarray(rows))
    beside.rename(path)
    print(f"{path}: {rows.shape[0]:,} × {rows.shape[1]} {rows.dtype}")


def save_origin(folder, name, origin):
    """Writes NAME.json, which says where NAME's vectors come from. It is written last: with it all is there."""
    path = Path(folder) / f"{name}.json"
    beside = path.with_suffix(".json.new")
    beside.write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    beside.rename(path)
