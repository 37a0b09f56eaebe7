"""The real libraries, measured on the same vectors and queries as ours: `make peers`.

    python benches/peers --data DIR --name pixels --out FILE.csv --measure COMMAND
        [--only hnswlib,scann] [--k 1,10,100] [--alone] [--slow]
    python benches/peers --table sift1m --data DIR --name sift-1m --out FILE.csv --measure COMMAND
        [--only faiss_ivf] [--threads 1,2] [--build-threads 2] [--cache FOLDER]

DIR holds what `measure --export DIR` wrote. COMMAND is how to run our `measure`: it measures ours
before every library, in the same session (not with --alone), and writes all rows to FILE, so that
the columns of the record are stated once, in src/lab/record.rs.

Each library runs in a process of its own, one after the other; one that is not installed, or fails,
is named and skipped. Everything is one thread, also the builds, unless --threads and
--build-threads say otherwise. A library's own call over many queries is used where it answers them
one by one (so that Python costs it nothing), a loop of single calls elsewhere; of two rounds the
faster counts, as with ours.

`--table sift1m` measures the indexes of the handout's table over a million descriptors, and the
strongest libraries: k = 1 and 10, searches on one thread and on all, builds on all threads. Ours
are measured apart. With --cache, built indexes are kept there, and a second run only searches.

Recall is counted as ours (`recall` in src/lab/evaluate.rs): a returned vector as near as the true
k-th, to a millionth of that distance, is a hit, and one returned twice counts once. The memory is
that of the index as the library saves it; where it keeps the vectors apart, they are added.
"""

import argparse
import os
import pathlib
import sys

# Python puts the folder of this file first on its path, where faiss.py would hide FAISS.
sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from peers import processes
from peers.libraries import LIBRARIES
from peers.sift1m import TABLE

TABLES = {"": LIBRARIES, "sift1m": TABLE}


def numbers(text):
    """Whole numbers over zero, separated by commas."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text}; expected numbers over zero")
    return [int(part) for part in parts]


def options():
    parser = argparse.ArgumentParser(prog="peers", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, help="folder with base.npy, queries.npy and distances.npy")
    add("--name", required=True, help="what the record calls these data")
    add("--out", help="the CSV file; a library's rows replace its earlier ones")
    add("--measure", help="the command of our measure, which writes the record")
    add("--alone", action="store_true", help="measure the libraries only, not ours beside them")
    add("--only", help="libraries, separated by commas")
    add("--k", type=numbers, help="1,10,100; with --table 1,10")
    add("--slow", action="store_true", help="also what takes minutes to build (NGT's onng)")
    add("--table", default="", choices=[name for name in TABLES if name], help="another plan")
    add("--threads", type=numbers, help="threads of the searches: 1; with --table 1 and all")
    add("--build-threads", type=int, help="threads of the builds: 1; with --table all")
    add("--cache", help="folder in which built indexes are kept")
    add("--child", help=argparse.SUPPRESS)
    return parser


def parsed(arguments=None):
    parser = options()
    plan = parser.parse_args(arguments)
    libraries, cores = TABLES[plan.table], os.cpu_count() or 1
    plan.only = plan.only.split(",") if plan.only else list(libraries)
    plan.k = plan.k or ([1, 10] if plan.table else [1, 10, 100])
    plan.threads = plan.threads or (sorted({1, cores}) if plan.table else [1])
    if plan.build_threads is None:
        plan.build_threads = cores if plan.table else 1
    if unknown := sorted({*plan.only, *filter(None, [plan.child])} - set(libraries)):
        parser.error(f"no library {', '.join(unknown)}; there are {', '.join(libraries)}")
    # More threads than processors measure how they wait for each other, and nothing else.
    asked = (plan.build_threads, *plan.threads)
    if min(asked) < 1 or max(asked) > cores:
        parser.error(f"this machine runs 1 to {cores} threads at once")
    if not plan.child and not (plan.out and plan.measure):
        parser.error("--out and --measure are needed")
    missing = [name for name in processes.FILES if not pathlib.Path(plan.data, name).is_file()]
    if missing:
        parser.error(f"{plan.data} has no {', '.join(missing)}: `measure --export` writes them")
    return plan, libraries


def main():
    plan, libraries = parsed()
    if plan.child:
        processes.child(libraries[plan.child], plan)
        return
    for name in plan.only:
        processes.measure_beside_ours(name, libraries[name], plan)


if __name__ == "__main__":
    main()
