"""ann-search, in Rust: a graph with codes like SymphonyQG's, and exact search by clusters."""

from peers.task import Library, Setting

EFS = (10, 20, 30, 50, 80, 120, 200, 400)


def settings(task):
    yield from graph(task)
    yield from clusters(task)


def built_of(task, new):
    import ann_search

    def make():
        ann_search.set_num_threads(task.threads)
        return new().fit(task.base)

    return task.build(make, lambda index, path: index.save(path))


def calls(index, **knobs):
    import ann_search

    def many(queries, k, threads=1):
        if ann_search.num_threads() != threads:
            ann_search.set_num_threads(threads)
        return index.kneighbors(queries, k, return_distance=False, **knobs)

    return {"one": lambda query, k: many(query[None], k)[0], "many": many}


def graph(task):
    import ann_search

    built = built_of(task, lambda: ann_search.QgIndex(degree=32, l_build=100, seed=1))
    for ef in EFS:
        params = {"degree": 32, "ef_construction": 100, "ef": ef}
        yield Setting("annsearch_qg", params, built, **calls(built.index, ef_search=ef))


def clusters(task):
    import ann_search

    # As many clusters as the root of n, its default.
    built = built_of(task, lambda: ann_search.KmknnIndex(seed=1))
    yield Setting("annsearch_kmknn", {}, built, **calls(built.index), few=200)


LIBRARY = Library(settings, "ann-search", originals="quantized_graph")
