"""What the plain library of each kind finds on the hard shapes: floors of tests/conformance.rs.

    python benches/plain_libraries.py --measure "cargo run --release --no-default-features \
        --features cli --bin measure --" [--shapes noise_64,sizes] [--only annoy,hnsw]
        [--n 2500] [--queries 100] [--seed 1]

The samples are those of the conformance suite, which `measure --export` writes. Every library is
asked with the search effort that our index of its kind has by default: as many lists probed, rows
refined, or candidates kept. A line a shape and library: recall@1 and recall@10, counted as in peers/measuring.py.
"""

import argparse
import multiprocessing
import pathlib
import shlex
import subprocess
import tempfile

from peers.measuring import recall


def faiss_ivf_flat(base):
    import faiss

    index = faiss.index_factory(base.shape[1], f"IVF{lists(base)},Flat")
    index.train(base)
    index.add(base)
    index.nprobe = 8
    return lambda queries, k: index.search(queries, k)[1]


def faiss_ivf_pq(base):
    import faiss

    dim = base.shape[1]
    # A part of the code for two values, or for one where the dimension is odd; 64 at most, as ours.
    parts = next(m for m in (64, dim // 2, dim) if m and m <= dim and dim % m == 0)
    index = faiss.index_factory(dim, f"IVF{lists(base)},PQ{parts}x4fs,RFlat")
    index.train(base)
    index.add(base)
    faiss.downcast_index(index.base_index).nprobe = 16
    index.k_factor = 10
    return lambda queries, k: index.search(queries, k)[1]


def lists(base):
    """256 lists, or as many as there are rows."""
    return min(256, len(base))


def hnswlib(base):
    import hnswlib

    index = hnswlib.Index("l2", base.shape[1])
    index.init_index(len(base), ef_construction=200, M=16, random_seed=1)
    index.add_items(base, num_threads=1)
    index.set_ef(40)
    return lambda queries, k: index.knn_query(queries, k, num_threads=1)[0]


def annoy(base):
    from annoy import AnnoyIndex

    index = AnnoyIndex(base.shape[1], "euclidean")
    index.set_seed(1)
    for row, vector in enumerate(base):
        index.add_item(row, vector)
    index.build(50, n_jobs=1)
    one = lambda query, k: index.get_nns_by_vector(query, k, 7_000)
    return lambda queries, k: [one(query, k) for query in queries]


# Each builds over the base, and gives a function of queries and k.
LIBRARIES = {"annoy": annoy, "ivf_flat": faiss_ivf_flat, "ivf_pq": faiss_ivf_pq, "hnsw": hnswlib}


def shapes(measure):
    """The names of all shapes."""
    listed = subprocess.run([*measure, "--list"], capture_output=True, text=True, check=True)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("shape:")]
    return [line.removeprefix("shape:").split(":")[0] for line in lines]


def sample(measure, shape, arguments, folder):
    """The base, the queries and the true distances of a shape."""
    import numpy

    data = f"--data=shape:{shape},n={arguments.n},seed={arguments.seed}"
    more = [f"--n-queries={arguments.queries}", "--k=1,10", f"--export={folder}"]
    subprocess.run([*measure, data, *more], check=True, stdout=subprocess.DEVNULL)
    read = lambda name: numpy.load(pathlib.Path(folder) / f"{name}.npy")
    base, queries = (numpy.ascontiguousarray(read(name), "f4") for name in ("base", "queries"))
    return base, queries, read("distances")


def ask(name, shape, base, queries, distances):
    """Prints what a library finds."""
    find = LIBRARIES[name](base)
    recalls = []
    for k in (1, 10):
        try:
            found = find(queries, k)
            recalls.append(f"{recall(base, queries, distances, found, k):.3f}")
        except RuntimeError:
            # hnswlib refuses to return fewer than it was asked for.
            recalls.append("fewer than k")
    print(f"{name:<10} {shape:<18} {' '.join(recalls)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--measure", required=True, help="the command of our measure")
    add("--shapes", default="", help="names separated by commas; all by default")
    add("--only", default=",".join(LIBRARIES), help="indexes of ours, separated by commas")
    add("--n", type=int, default=2_500, help="rows")
    add("--queries", type=int, default=100)
    add("--seed", type=int, default=1)
    arguments = parser.parse_args()
    measure = shlex.split(arguments.measure)
    names = arguments.shapes.split(",") if arguments.shapes else shapes(measure)
    for shape in names:
        with tempfile.TemporaryDirectory() as folder:
            data = sample(measure, shape, arguments, folder)
        for name in arguments.only.split(","):
            # FAISS ends its process on values that overflow.
            process = multiprocessing.Process(target=ask, args=(name, shape, *data))
            process.start()
            process.join()
            if process.exitcode:
                print(f"{name:<10} {shape:<18} failed", flush=True)


if __name__ == "__main__":
    main()
