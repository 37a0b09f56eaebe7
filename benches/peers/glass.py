"""pyglass: the graphs HNSW and NSG, walked by codes of a byte a value (SQ8U).

pyglass-portable has it as wheels. Its codes of half a byte (SQ4U) lose recall, and are left out.
"""

from peers.task import Library, Setting

EFS = (10, 16, 24, 32, 48, 64, 96, 128, 200, 400)


def settings(task):
    import glass

    rows, dim = task.base.shape

    def make(kind):
        glass.set_num_threads(task.threads)
        graph = glass.Index(kind, "L2", "SQ8U", R=32, L=200).build(task.base)
        # It quantises the vectors here.
        return graph, glass.Searcher(graph, task.base, "L2", "SQ8U")

    for kind in ("HNSW", "NSG"):
        save = lambda index, path: index[0].save(path)
        # The graph alone is saved, the codes lie apart.
        built = task.build(lambda: make(kind), save, apart=rows * dim)
        many, one = calls(built.index[1])
        for ef in EFS:
            # It refuses to keep fewer than it is asked for.
            built.index[1].set_ef(ef)
            params = {"degree": 32, "ef_construction": 200, "ef": ef}
            yield Setting(f"glass_{kind.lower()}", params, built, one, many)


def calls(searcher):
    def many(queries, k, threads=1):
        return searcher.batch_search(queries, k, threads)[0]

    return many, lambda query, k: searcher.search(query, k)[0]


LIBRARY = Library(settings, "pyglass-portable", originals="quantized_graph")
