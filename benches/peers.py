"""The real libraries, measured on the same vectors and queries as ours: `make peers`.

    python benches/peers.py --data DIR --name pixels --out FILE.csv --measure COMMAND
        [--only hnswlib,scann] [--k 1,10,100] [--alone] [--slow]

DIR holds what `measure --export DIR` wrote. COMMAND is how to run our `measure`: it measures ours
before every library, in the same session (not with --alone), and writes all rows to FILE, so that
the columns of the record are stated once, in src/lab/record.rs.

Each library runs in a process of its own, one after the other; one that is not installed, or fails,
is named and skipped. Everything is one thread, also the builds. A library's own call over many
queries is used where it answers them one by one (so that Python costs it nothing), a loop of single
calls elsewhere; of two rounds the faster counts, as with ours.

Recall is counted as ours (`recall` in src/lab/evaluate.rs): a returned vector as near as the true
k-th, to a millionth of that distance, is a hit, and one returned twice counts once. The memory is
that of the index as the library saves it; where it keeps the vectors apart, they are added.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import pickle
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

# How much farther than the true k-th neighbour a hit may be, as a share of that distance.
TOLERANCE = 1e-6
# A round that took so many seconds is not repeated, as with ours.
LONG_ROUND_S = 0.5


@dataclass
class Setting:
    """A library's index, built, with query parameters: what is measured for a row."""

    index: str
    """What the record calls it."""
    params: dict
    build_s: float
    memory_bytes: int
    one: Callable
    """one(query, k): the ids of the k nearest."""
    many: Callable | None = None
    """many(queries, k): the same for each, one by one (but for TOGETHER); None if it has none."""


def timed(work):
    """Seconds, and what `work()` returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def saved_size(save):
    """Bytes of what `save(path)` writes, be it a file, several, or a folder."""
    with tempfile.TemporaryDirectory() as folder:
        save(os.path.join(folder, "index"))
        return folder_size(folder)


def folder_size(folder):
    files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


# A library is a generator over its settings. A setting is measured before the next one is made, so
# that one index, with other query parameters set, can serve them all.


def faiss(base):
    import faiss

    faiss.omp_set_num_threads(1)
    yield from faiss_flat(faiss, base)
    yield from faiss_hnsw(faiss, base)
    yield from faiss_ivf_flat(faiss, base)
    yield from faiss_ivf_pq(faiss, base)


def faiss_built(faiss, base, spec):
    """The index of FAISS's factory string `spec` over the base, the seconds, and its bytes."""
    index = faiss.index_factory(base.shape[1], spec)
    if hasattr(index, "hnsw"):
        index.hnsw.efConstruction = 200
    seconds, _ = timed(lambda: (index.train(base), index.add(base)))
    return index, seconds, faiss.serialize_index(index).nbytes


def faiss_calls(index):
    """One query, and many."""
    many = lambda queries, k: index.search(queries, k)[1]
    return lambda query, k: many(query[None], k)[0], many


def faiss_flat(faiss, base):
    index, seconds, memory = faiss_built(faiss, base, "Flat")
    one, many = faiss_calls(index)
    yield Setting("faiss_flat", {}, seconds, memory, one, many)


def faiss_hnsw(faiss, base):
    index, seconds, memory = faiss_built(faiss, base, "HNSW32,Flat")
    one, many = faiss_calls(index)
    for ef in (10, 20, 40, 80, 120, 200, 400, 800):
        index.hnsw.efSearch = ef
        yield Setting("faiss_hnsw", {"m": 32, "ef_search": ef}, seconds, memory, one, many)


def faiss_ivf_flat(faiss, base):
    for nlist in (256, 1024):
        index, seconds, memory = faiss_built(faiss, base, f"IVF{nlist},Flat")
        one, _ = faiss_calls(index)
        for nprobe in (1, 2, 4, 8, 16, 32, 64):
            index.nprobe = nprobe
            params = {"nlist": nlist, "nprobe": nprobe}
            yield Setting("faiss_ivf_flat", params, seconds, memory, one)


def faiss_ivf_pq(faiss, base):
    dim = base.shape[1]
    # The codes' parts must divide the dimension.
    half = next(m for m in (dim // 2, dim // 4, dim) if m and dim % m == 0)
    for m, factors in ((half, (1, 5)), (max(half // 4, 1), (5, 20))):
        index, seconds, memory = faiss_built(faiss, base, f"IVF256,PQ{m}x4fs,RFlat")
        one, _ = faiss_calls(index)
        inner = faiss.downcast_index(index.base_index)
        for nprobe in (2, 4, 8, 16, 32, 64):
            for factor in factors:
                inner.nprobe, index.k_factor = nprobe, factor
                params = {"nlist": 256, "m": m, "nprobe": nprobe, "k_factor": factor}
                yield Setting("faiss_ivf_pq", params, seconds, memory, one)


def hnswlib(base):
    import hnswlib

    for m in (16, 32):
        index = hnswlib.Index("l2", base.shape[1])
        index.init_index(len(base), ef_construction=500, M=m, random_seed=1)
        index.set_num_threads(1)
        seconds, _ = timed(lambda: index.add_items(base, num_threads=1))
        memory = saved_size(index.save_index)
        many = lambda queries, k: index.knn_query(queries, k, num_threads=1)[0]
        one = lambda query, k: many(query, k)[0]
        for ef in (10, 20, 40, 80, 120, 200, 400, 800):
            index.set_ef(ef)
            params = {"m": m, "ef_construction": 500, "ef": ef}
            yield Setting("hnswlib", params, seconds, memory, one, many)


def nmslib(base):
    import nmslib

    index = nmslib.init(method="hnsw", space="l2")
    index.addDataPointBatch(base)
    build = {"M": 16, "efConstruction": 500, "post": 2, "indexThreadQty": 1}
    seconds, _ = timed(lambda: index.createIndex(build))
    memory = saved_size(lambda path: index.saveIndex(path, save_data=True))
    one = lambda query, k: index.knnQuery(query, k)[0]
    many = lambda queries, k: [row[0] for row in index.knnQueryBatch(queries, k, num_threads=1)]
    for ef in (10, 20, 40, 80, 120, 200, 400, 800):
        index.setQueryTimeParams({"efSearch": ef})
        params = {"m": 16, "ef_construction": 500, "ef": ef}
        yield Setting("nmslib", params, seconds, memory, one, many)


def annoy(base):
    from annoy import AnnoyIndex

    for trees in (10, 50, 100):
        index = AnnoyIndex(base.shape[1], "euclidean")
        index.set_seed(1)

        def build():
            for row, vector in enumerate(base):
                index.add_item(row, vector)
            index.build(trees, n_jobs=1)

        seconds, _ = timed(build)
        memory = saved_size(index.save)
        for search_k in (400, 1000, 2000, 4000, 10_000, 20_000):
            one = lambda query, k: index.get_nns_by_vector(query, k, search_k)
            params = {"n_trees": trees, "search_k": search_k}
            yield Setting("annoy_spotify", params, seconds, memory, one)


def scann(base):
    import scann

    for leaves in (200, 600):
        builder = scann.scann_ops_pybind.builder(base, 10, "squared_l2")
        builder = builder.tree(leaves, leaves, training_sample_size=len(base))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=float("nan"))
        builder = builder.reorder(100).set_n_training_threads(1)
        seconds, index = timed(builder.build)

        def save(path):
            os.mkdir(path)
            index.serialize(path)

        memory = saved_size(save)
        for probed, reorder in ((2, 40), (5, 60), (10, 80), (20, 100), (40, 150), (80, 200)):

            def one(query, k):
                found = index.search(
                    query,
                    final_num_neighbors=k,
                    leaves_to_search=probed,
                    pre_reorder_num_neighbors=max(reorder, k),
                )
                return found[0]

            params = {"num_leaves": leaves, "num_leaves_to_search": probed, "reorder": reorder}
            yield Setting("scann_google", params, seconds, memory, one)


def ngt(base, slow=False):
    import ngtpy

    for kind in ("anng", "onng") if slow else ("anng",):
        with tempfile.TemporaryDirectory() as folder:
            seconds, made = timed(lambda: ngt_built(ngtpy, base, kind, folder))
            memory = folder_size(made)
            index = ngtpy.Index(made.encode(), read_only=True)
            for epsilon in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2):
                one = lambda query, k: [found[0] for found in index.search(query, k, epsilon)]
                params = {"edge_size": 100, "epsilon": epsilon}
                yield Setting(f"ngt_{kind}", params, seconds, memory, one)
            index.close()


def ngt_built(ngtpy, base, kind, folder):
    """Builds a graph in `folder`; where it is."""
    path, optimised = os.path.join(folder, "anng"), os.path.join(folder, "onng")
    dim = base.shape[1]
    ngtpy.create(path.encode(), dim, distance_type="L2", edge_size_for_creation=100)
    index = ngtpy.Index(path.encode())
    index.batch_insert(base, num_threads=1)
    index.save()
    index.close()
    if kind == "anng":
        return path
    optimizer = ngtpy.Optimizer(num_of_outgoings=10, num_of_incomings=100, log_disabled=True)
    optimizer.execute(path.encode(), optimised.encode())
    return optimised


def rabitqlib(base):
    import numpy
    import rabitqlib

    for degree in (32, 64):
        index = rabitqlib.SymqgIndex(base.shape[1], degree, "l2")
        seconds, _ = timed(lambda: index.build(base, 400, num_threads=1))
        memory = saved_size(index.save)

        def many(queries, k):
            # It refuses to keep fewer than it is asked for.
            found = index.search_batch(queries, k, max(ef, k), num_threads=1)
            arrays = [numpy.asarray(part) for part in found]
            return next(part.astype(numpy.int64) for part in arrays if part.dtype.kind in "iu")

        one = lambda query, k: many(query[None], k)[0]
        for ef in (10, 20, 30, 50, 80, 120, 200, 400, 800):
            params = {"degree": degree, "ef": ef}
            yield Setting("symphony_qg", params, seconds, memory, one, many)


def sklearn(base):
    from sklearn.neighbors import NearestNeighbors

    for algorithm in ("brute", "kd_tree", "ball_tree"):
        model = NearestNeighbors(algorithm=algorithm, leaf_size=40, n_jobs=1)
        seconds, index = timed(lambda: model.fit(base))
        memory = len(pickle.dumps(index))
        many = lambda queries, k: index.kneighbors(queries, k, return_distance=False)
        one = lambda query, k: many(query[None], k)[0]
        name = f"sklearn_{algorithm}"
        if algorithm == "brute":
            yield Setting(name, {}, seconds, memory, one, many)
        else:
            yield Setting(name, {"leaf_size": 40}, seconds, memory, one)


@dataclass
class Library:
    settings: Callable
    package: str
    """The package on PyPI, whose version is recorded."""
    originals: str
    """The indexes of ours that it is the original of, to be measured beside it."""


# By the name for --only.
LIBRARIES = {
    "faiss": Library(faiss, "faiss-cpu", "brute_force,ivf_flat,ivf_pq"),
    "hnswlib": Library(hnswlib, "hnswlib", "hnsw"),
    "nmslib": Library(nmslib, "nmslib", ""),
    "annoy": Library(annoy, "annoy", "annoy"),
    "scann": Library(scann, "scann", "scann"),
    "ngt": Library(ngt, "ngt", "ngt"),
    "rabitqlib": Library(rabitqlib, "rabitqlib", "quantized_graph"),
    "sklearn": Library(sklearn, "scikit-learn", "kd_tree,ball_tree,va_file"),
}
# Their call over many queries multiplies matrices: a batch is another thing than single queries.
TOGETHER = {"faiss_flat", "sklearn_brute"}
# Too slow for a thousand queries: a few say enough.
FEW = {"sklearn_kd_tree": 50, "sklearn_ball_tree": 50, "sklearn_brute": 50, "faiss_flat": 300}


def recall(base, queries, distances, found, k):
    """The share of the true k nearest that was found, by distance: see the head of this file."""
    import numpy

    hits = 0
    for query, limits, ids in zip(queries, distances, found):
        ids = numpy.unique(numpy.asarray(ids)[:k])
        ids = ids[(ids >= 0) & (ids < len(base))].astype(numpy.int64)
        differences = base[ids].astype(numpy.float64) - query.astype(numpy.float64)
        lengths = numpy.sqrt((differences**2).sum(1))
        hits += int((lengths <= limits[k - 1] * (1 + TOLERANCE)).sum())
    return hits / (len(queries) * k)


def one_by_one(setting, queries, k):
    """Seconds of each query, and what was found: the faster of two rounds, unless one is long."""
    rounds = []
    for _ in range(2):
        seconds, found = [], []
        for query in queries:
            taken, ids = timed(lambda: setting.one(query, k))
            seconds.append(taken)
            found.append(ids)
        rounds.append((seconds, found))
        if sum(seconds) > LONG_ROUND_S:
            break
    return min(rounds, key=lambda round: sum(round[0]))


def measure(setting, base, queries, distances, k):
    """The figures of a row for one setting of a library."""
    some = queries[: FEW.get(setting.index, len(queries))]
    # Caches and the processor's clock need a few queries to settle.
    for query in some[:20]:
        setting.one(query, k)
    seconds, found = one_by_one(setting, some, k)
    seconds.sort()
    qps = qps_batch = len(some) / sum(seconds)
    if setting.many:
        times = [timed(lambda: setting.many(queries, k))[0] for _ in range(2)]
        qps_batch = len(queries) / min(times)
        if setting.index not in TOGETHER:
            # Single queries without what Python costs.
            qps = max(qps, qps_batch)

    def latency_us(share):
        place = max(-int(-share * len(seconds) // 1), 1)
        return seconds[place - 1] * 1e6

    return {
        "recall": recall(base, some, distances, found, k),
        "qps": qps,
        "qps_batch": max(qps, qps_batch),
        "p50_us": latency_us(0.5),
        "p99_us": latency_us(0.99),
        "build_s": setting.build_s,
        "memory_bytes": int(setting.memory_bytes),
    }


def child(arguments):
    """Measures one library and prints a JSON line a row, as `measure --replace-from` reads them."""
    import numpy

    read = lambda name: numpy.load(os.path.join(arguments.data, name + ".npy"))
    base, queries = (numpy.ascontiguousarray(read(name), "f4") for name in ("base", "queries"))
    distances = read("distances")
    library = LIBRARIES[arguments.child]
    version = importlib.metadata.version(library.package)
    more = [arguments.slow] if library.settings is ngt else []
    for setting in library.settings(base, *more):
        for k in arguments.k:
            row = {
                "index": setting.index,
                "params": setting.params,
                "data": arguments.name,
                "n": len(base),
                "d": base.shape[1],
                "k": k,
                "threads": 1,
                **measure(setting, base, queries, distances, k),
                "commit": f"{library.package} {version}",
            }
            print(json.dumps(row), flush=True)


def show(row):
    params = " ".join(f"{name}={value}" for name, value in row["params"].items())
    speed = f"recall {row['recall']:.4f}  {row['qps']:>8.0f} queries/s"
    head = f"{row['index']:<16} k {row['k']:>3}"
    print(f"{head}  {speed}  build {row['build_s']:>6.2f} s  {params}", flush=True)


def rows_of(name, arguments):
    """What a library's own process prints, as lines; none, and a word why, if it fails."""
    command = [sys.executable, __file__, "--child", name, "--data", arguments.data]
    command += ["--name", arguments.name, "--k", ",".join(map(str, arguments.k))]
    command += ["--slow"] * arguments.slow
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, "1")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    rows = []
    with subprocess.Popen(command, **pipes, env=environment) as process:
        for line in process.stdout:
            try:
                row = json.loads(line)
            except ValueError:
                # Some libraries print on their own.
                continue
            rows.append(line)
            show(row)
        said = process.stderr.read().strip().splitlines()
    if process.returncode:
        why = said[-1] if said else f"ended by signal {-process.returncode}"
        print(f"{name}: skipped, {why}", flush=True)
        return []
    return rows


def put(arguments, file):
    """Puts the rows of a file into the record, in place of those of the same indexes."""
    command = shlex.split(arguments.measure)
    subprocess.run([*command, f"--replace-from={file}", f"--out={arguments.out}"], check=True)


def ours(indexes, arguments, folder):
    """Measures indexes of ours on the same files, into the record."""
    command = shlex.split(arguments.measure)
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True)
    known = "\n" + listed.stdout
    names = [name for name in indexes.split(",") if name and f"\n{name}:" in known]
    if not names:
        return
    out = os.path.join(folder, "ours.csv")
    command += [f"--data={arguments.data}/base.npy", f"--queries={arguments.data}/queries.npy"]
    command += [f"--name={arguments.name}", f"--index={','.join(names)}"]
    command += [f"--k={','.join(map(str, arguments.k))}", "--n-queries=1000000", f"--out={out}"]
    subprocess.run(command, check=True)
    put(arguments, out)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, help="folder with base.npy, queries.npy and distances.npy")
    add("--name", required=True, help="what the record calls these data")
    add("--out", help="the CSV file; a library's rows replace its earlier ones")
    add("--measure", help="the command of our measure, which writes the record")
    add("--alone", action="store_true", help="measure the libraries only, not ours beside them")
    add("--only", default=",".join(LIBRARIES), help="libraries, separated by commas")
    add("--k", default="1,10,100", type=lambda text: [int(k) for k in text.split(",")])
    add("--slow", action="store_true", help="also what takes minutes to build (NGT's onng)")
    add("--child", choices=LIBRARIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.only.split(",")) - set(LIBRARIES))
    if unknown:
        parser.error(f"no library {', '.join(unknown)}; there are {', '.join(LIBRARIES)}")
    if not arguments.child and not (arguments.out and arguments.measure):
        parser.error("--out and --measure are needed")
    return arguments


def main():
    arguments = parsed()
    if arguments.child:
        child(arguments)
        return
    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            if not arguments.alone:
                ours(LIBRARIES[name].originals, arguments, folder)
            rows = rows_of(name, arguments)
            if rows:
                file = os.path.join(folder, "theirs.jsonl")
                pathlib.Path(file).write_text("".join(rows), encoding="utf-8")
                put(arguments, file)


if __name__ == "__main__":
    main()
