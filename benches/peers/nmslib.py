"""NMSLIB's HNSW."""

from peers.task import Library, Setting

EFS = (10, 20, 40, 80, 120, 200, 400, 800)


def settings(task, ef_construction=500, post=2, efs=EFS):
    import nmslib

    new = lambda: nmslib.init(method="hnsw", space="l2")

    def make():
        index = new()
        index.addDataPointBatch(task.base)
        how = {"M": 16, "efConstruction": ef_construction, "post": post}
        index.createIndex({**how, "indexThreadQty": task.threads})
        return index

    def load(path):
        index = new()
        index.loadIndex(path, load_data=True)
        return index

    save = lambda index, path: index.saveIndex(path, save_data=True)
    built = task.build(make, save, load, f"nmslib 16 {ef_construction} {post}")
    batch = lambda queries, k, n: built.index.knnQueryBatch(queries, k, num_threads=n)
    many = lambda queries, k, n=1: [found[0] for found in batch(queries, k, n)]
    one = lambda query, k: built.index.knnQuery(query, k)[0]
    for ef in efs:
        built.index.setQueryTimeParams({"efSearch": ef})
        params = {"m": 16, "ef_construction": ef_construction, "ef": ef}
        yield Setting("nmslib", params, built, one, many)


LIBRARY = Library(settings, "nmslib")
