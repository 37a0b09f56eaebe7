"""hnswlib: the library of HNSW's authors. PyPI has its source, compiled for the machine."""

from peers.task import Library, Setting

EFS = (10, 20, 40, 80, 120, 200, 400, 800)


def settings(task, degrees=(16, 32), ef_construction=500, efs=EFS):
    import hnswlib

    rows, dim = task.base.shape

    def make(m):
        index = hnswlib.Index("l2", dim)
        index.init_index(rows, ef_construction=ef_construction, M=m, random_seed=1)
        index.add_items(task.base, num_threads=task.threads)
        return index

    def load(path):
        index = hnswlib.Index("l2", dim)
        index.load_index(path)
        return index

    for m in degrees:
        name = f"hnswlib {m} {ef_construction}"
        built = task.build(lambda: make(m), lambda index, path: index.save_index(path), load, name)
        many = lambda queries, k, n=1: built.index.knn_query(queries, k, num_threads=n)[0]
        one = lambda query, k: many(query, k)[0]
        for ef in efs:
            built.index.set_ef(ef)
            params = {"m": m, "ef_construction": ef_construction, "ef": ef}
            yield Setting("hnswlib", params, built, one, many)


LIBRARY = Library(settings, "hnswlib", originals="hnsw")
