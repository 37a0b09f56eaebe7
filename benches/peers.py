"""The real libraries, measured on the same vectors and queries as ours and into the same columns: `make peers`.

    python benches/peers.py --data DIR --name pixels --out FILE.csv [--only hnswlib,scann] [--k 1,10,100] [--ours COMMAND]

DIR holds what `measure --export DIR` wrote. Each library runs in a process of its own, one after the other; one that is
not installed, or fails, is named and skipped. With --ours, our `measure` runs before every library, in the same session. Everything
is one thread, also the builds. A library's own call over many queries is used where it answers them one by one (so Python
costs it nothing), a loop of single calls elsewhere; of two rounds the faster counts, as with ours.

Recall is counted as ann-benchmarks does: a returned vector as near as the true k-th (to 1e-3) is a hit. The memory is
that of the index as the library saves it; where it keeps the vectors apart, they are added.
"""

import argparse
import csv
import datetime
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

COLUMNS = (
    "index params data n d k threads recall qps qps_batch p50_us p99_us build_s memory_bytes commit cpu date".split()
)
TOLERANCE = 1e-3


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def saved_size(save):
    """Bytes of what `save(path)` writes, be it a file, several, or a folder."""
    with tempfile.TemporaryDirectory() as folder:
        save(os.path.join(folder, "index"))
        return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


# A library is a generator over its settings: (index, params, build seconds, memory in bytes, one, many). `one(query, k)` and
# `many(queries, k)` return ids; `many` answers one by one (but for TOGETHER), and is None where the library has no such call.


def faiss(base):
    import faiss

    faiss.omp_set_num_threads(1)
    dim = base.shape[1]

    def build(spec):
        index = faiss.index_factory(dim, spec)
        if hasattr(index, "hnsw"):
            index.hnsw.efConstruction = 200
        seconds, _ = timed(lambda: (index.train(base), index.add(base)))
        return index, seconds, faiss.serialize_index(index).nbytes

    def one(index):
        return lambda query, k: index.search(query[None], k)[1][0]

    index, seconds, memory = build("Flat")
    yield "faiss_flat", {}, seconds, memory, one(index), lambda queries, k: index.search(queries, k)[1]
    index, seconds, memory = build("HNSW32,Flat")
    for ef in (10, 20, 40, 80, 120, 200, 400, 800):
        index.hnsw.efSearch = ef
        yield "faiss_hnsw", {"m": 32, "ef_search": ef}, seconds, memory, one(index), lambda queries, k: index.search(queries, k)[1]
    for nlist in (256, 1024):
        index, seconds, memory = build(f"IVF{nlist},Flat")
        for nprobe in (1, 2, 4, 8, 16, 32, 64):
            index.nprobe = nprobe
            yield "faiss_ivf_flat", {"nlist": nlist, "nprobe": nprobe}, seconds, memory, one(index), None
    half = next(m for m in (dim // 2, dim // 4, dim) if m and dim % m == 0)
    for m, factors in ((half, (1, 5)), (max(half // 4, 1), (5, 20))):
        index, seconds, memory = build(f"IVF256,PQ{m}x4fs,RFlat")
        inner = faiss.downcast_index(index.base_index)
        for nprobe in (2, 4, 8, 16, 32, 64):
            for factor in factors:
                inner.nprobe, index.k_factor = nprobe, factor
                params = {"nlist": 256, "m": m, "nprobe": nprobe, "k_factor": factor}
                yield "faiss_ivf_pq", params, seconds, memory, one(index), None


def hnswlib(base):
    import hnswlib

    for m in (16, 32):
        index = hnswlib.Index("l2", base.shape[1])
        index.init_index(len(base), ef_construction=500, M=m, random_seed=1)
        index.set_num_threads(1)
        seconds, _ = timed(lambda: index.add_items(base, num_threads=1))
        memory = saved_size(index.save_index)
        for ef in (10, 20, 40, 80, 120, 200, 400, 800):
            index.set_ef(ef)
            many = lambda queries, k: index.knn_query(queries, k, num_threads=1)[0]
            yield "hnswlib", {"m": m, "ef_construction": 500, "ef": ef}, seconds, memory, lambda query, k: many(query, k)[0], many


def nmslib(base):
    import nmslib

    index = nmslib.init(method="hnsw", space="l2")
    index.addDataPointBatch(base)
    build = {"M": 16, "efConstruction": 500, "post": 2, "indexThreadQty": 1}
    seconds, _ = timed(lambda: index.createIndex(build))
    memory = saved_size(lambda path: index.saveIndex(path, save_data=True))
    for ef in (10, 20, 40, 80, 120, 200, 400, 800):
        index.setQueryTimeParams({"efSearch": ef})
        many = lambda queries, k: [row[0] for row in index.knnQueryBatch(queries, k, num_threads=1)]
        yield "nmslib", {"m": 16, "ef_construction": 500, "ef": ef}, seconds, memory, lambda query, k: index.knnQuery(query, k)[0], many


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
            yield "annoy_spotify", {"n_trees": trees, "search_k": search_k}, seconds, memory, one, None


def scann(base):
    import scann

    for leaves in (200, 600):
        builder = scann.scann_ops_pybind.builder(base, 10, "squared_l2")
        builder = builder.tree(leaves, leaves, training_sample_size=len(base))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=float("nan")).reorder(100).set_n_training_threads(1)
        seconds, index = timed(builder.build)

        def save(path):
            os.mkdir(path)
            index.serialize(path)

        memory = saved_size(save)
        for probed, reorder in ((2, 40), (5, 60), (10, 80), (20, 100), (40, 150), (80, 200)):
            one = lambda query, k: index.search(query, final_num_neighbors=k, leaves_to_search=probed, pre_reorder_num_neighbors=max(reorder, k))[0]
            yield "scann_google", {"num_leaves": leaves, "num_leaves_to_search": probed, "reorder": reorder}, seconds, memory, one, None


def ngt(base, slow=False):
    import ngtpy

    for kind in ("anng", "onng") if slow else ("anng",):
        with tempfile.TemporaryDirectory() as folder:
            path, optimised = os.path.join(folder, "anng"), os.path.join(folder, "onng")

            def build():
                ngtpy.create(path.encode(), base.shape[1], distance_type="L2", edge_size_for_creation=100)
                index = ngtpy.Index(path.encode())
                index.batch_insert(base, num_threads=1)
                index.save()
                index.close()
                if kind == "onng":
                    optimizer = ngtpy.Optimizer(num_of_outgoings=10, num_of_incomings=100, log_disabled=True)
                    optimizer.execute(path.encode(), optimised.encode())

            seconds, _ = timed(build)
            made = optimised if kind == "onng" else path
            memory = sum(file.stat().st_size for file in pathlib.Path(made).rglob("*") if file.is_file())
            index = ngtpy.Index(made.encode(), read_only=True)
            for epsilon in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2):
                one = lambda query, k: [found[0] for found in index.search(query, k, epsilon)]
                yield f"ngt_{kind}", {"edge_size": 100, "epsilon": epsilon}, seconds, memory, one, None
            index.close()


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
            return next(numpy.asarray(part).astype(numpy.int64) for part in found if numpy.asarray(part).dtype.kind in "iu")

        for ef in (10, 20, 30, 50, 80, 120, 200, 400, 800):
            yield "symphony_qg", {"degree": degree, "ef": ef}, seconds, memory, lambda query, k: many(query[None], k)[0], many


def sklearn(base):
    from sklearn.neighbors import NearestNeighbors

    for algorithm in ("brute", "kd_tree", "ball_tree"):
        seconds, index = timed(lambda: NearestNeighbors(algorithm=algorithm, leaf_size=40, n_jobs=1).fit(base))
        memory = len(pickle.dumps(index))
        one = lambda query, k: index.kneighbors(query[None], k, return_distance=False)[0]
        many = lambda queries, k: index.kneighbors(queries, k, return_distance=False)
        yield f"sklearn_{algorithm}", {} if algorithm == "brute" else {"leaf_size": 40}, seconds, memory, one, many if algorithm == "brute" else None


# The name for --only, the package whose version is recorded, and which of ours it is the original of.
LIBRARIES = {
    "faiss": (faiss, "faiss-cpu", "brute_force,ivf_flat,ivf_pq"),
    "hnswlib": (hnswlib, "hnswlib", "hnsw"),
    "nmslib": (nmslib, "nmslib", ""),
    "annoy": (annoy, "annoy", "annoy"),
    "scann": (scann, "scann", "scann"),
    "ngt": (ngt, "ngt", "ngt"),
    "rabitqlib": (rabitqlib, "rabitqlib", "quantized_graph"),
    "sklearn": (sklearn, "scikit-learn", "kd_tree,ball_tree,va_file"),
}
# Their call over many queries multiplies matrices: a batch is another thing than as many single queries.
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
        hits += int((numpy.sqrt((differences**2).sum(1)) <= limits[k - 1] + TOLERANCE).sum())
    return hits / (len(queries) * k)


def measure(setting, base, queries, distances, k):
    """The figures of a row for one setting of a library."""
    import numpy

    index, _, build_s, memory, one, many = setting
    all_queries, queries = queries, queries[: FEW.get(index, len(queries))]
    for query in queries[:20]:
        one(query, k)
    rounds = []
    for _ in range(2):
        seconds, found = [], []
        for query in queries:
            start = time.perf_counter()
            ids = one(query, k)
            seconds.append(time.perf_counter() - start)
            found.append(ids)
        rounds.append((sum(seconds), sorted(seconds), found))
        if rounds[-1][0] > 0.5:
            break
    total, seconds, found = min(rounds, key=lambda round: round[0])
    qps = len(queries) / total
    if many:
        qps_batch = max(len(all_queries) / timed(lambda: many(all_queries, k))[0] for _ in range(2))
        qps = qps if index in TOGETHER else max(qps, qps_batch)
    else:
        qps_batch = qps
    at = lambda share: seconds[max(int(numpy.ceil(share * len(seconds))), 1) - 1] * 1e6
    return {
        "recall": recall(base, queries, distances, found, k),
        "qps": qps,
        "qps_batch": max(qps, qps_batch),
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "build_s": build_s,
        "memory_bytes": int(memory),
    }


def cpu():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        return next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown")


def child(arguments):
    """Measures one library and prints a JSON line a row."""
    import numpy

    read = lambda name: numpy.load(os.path.join(arguments.data, name + ".npy"))
    base, queries, distances = (numpy.ascontiguousarray(read(name)) for name in ("base", "queries", "distances"))
    base, queries = base.astype(numpy.float32), queries.astype(numpy.float32)
    library, package, _ = LIBRARIES[arguments.child]
    settings = library(base, arguments.slow) if library is ngt else library(base)
    for setting in settings:
        for k in arguments.k:
            row = {
                "index": setting[0],
                "params": " ".join(f"{name}={value}" for name, value in setting[1].items()),
                "data": arguments.name,
                "n": len(base),
                "d": base.shape[1],
                "k": k,
                "threads": 1,
                **measure(setting, base, queries, distances, k),
                "commit": f"{package} {importlib.metadata.version(package)}",
                "cpu": cpu(),
                "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            }
            print(json.dumps(row), flush=True)


def read_rows(path):
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            sys.exit(f"{path}: not a record; its columns are {reader.fieldnames}")
        return list(reader)


def write_rows(path, rows):
    """Replaces the file whole: a reader sees the old rows or all of the new."""
    with open(path + ".new", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(path + ".new", path)


def rows_of(name, arguments):
    """What a library's own process prints; None, and a line that says why, if it fails."""
    command = [sys.executable, __file__, "--child", name, "--data", arguments.data, "--name", arguments.name]
    command += ["--k", ",".join(map(str, arguments.k))] + ["--slow"] * arguments.slow
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **threads}) as process:
        for line in process.stdout:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            rows.append(row)
            print(f"{row['index']:<16} k {row['k']:>3}  recall {row['recall']:.4f}  {row['qps']:>8.0f} queries/s  build {row['build_s']:>6.2f} s  {row['params']}", flush=True)
        said = process.stderr.read().strip().splitlines()
    if process.returncode:
        print(f"{name}: skipped, {said[-1] if said else f'ended by signal {-process.returncode}'}", flush=True)
        return None
    return rows


def ours(indexes, arguments):
    """Measures indexes of ours on the same files."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "ours.csv")
        measure = shlex.split(arguments.ours)
        known = subprocess.run([*measure, "--list"], capture_output=True, text=True, check=True).stdout
        names = [name for name in indexes.split(",") if f"\n{name}:" in "\n" + known]
        if not names:
            return []
        data = [f"--data={arguments.data}/base.npy", f"--queries={arguments.data}/queries.npy"]
        command = [*measure, *data, f"--index={','.join(names)}", f"--k={','.join(map(str, arguments.k))}", f"--out={out}", "--sweep=default"]
        subprocess.run([*command, "--n-queries=1000000"], check=True)
        return [{**row, "data": arguments.name} for row in read_rows(out)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with base.npy, queries.npy and distances.npy")
    parser.add_argument("--name", required=True, help="what the record calls these data")
    parser.add_argument("--out", help="the CSV file; a library's rows replace its earlier ones")
    parser.add_argument("--only", default=",".join(LIBRARIES), help="libraries, separated by commas")
    parser.add_argument("--k", default="1,10,100", type=lambda text: [int(k) for k in text.split(",")])
    parser.add_argument("--ours", help="the command of our measure, to run in turns with the libraries")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes to build (NGT's onng)")
    parser.add_argument("--child", choices=LIBRARIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    unknown = set(arguments.only.split(",")) - set(LIBRARIES)
    if unknown or not arguments.out:
        parser.error(f"no library {', '.join(sorted(unknown))}; there are {', '.join(LIBRARIES)}" if unknown else "--out is missing")
    for name in arguments.only.split(","):
        new = ours(LIBRARIES[name][2], arguments) if arguments.ours else []
        new += rows_of(name, arguments) or []
        kept = {row["index"] for row in new}
        write_rows(arguments.out, [row for row in read_rows(arguments.out) if row["index"] not in kept] + new)
    return None


if __name__ == "__main__":
    main()
