"""Annoy (Spotify): trees of random hyperplanes. It answers one query a call only."""

from peers.task import Library, Setting


def settings(task):
    from annoy import AnnoyIndex

    def make(trees):
        index = AnnoyIndex(task.base.shape[1], "euclidean")
        index.set_seed(1)
        for row, vector in enumerate(task.base):
            index.add_item(row, vector)
        index.build(trees, n_jobs=task.threads)
        return index

    for trees in (10, 50, 100):
        built = task.build(lambda: make(trees), lambda index, path: index.save(path))
        for search_k in (400, 1000, 2000, 4000, 10_000, 20_000):
            one = lambda query, k: built.index.get_nns_by_vector(query, k, search_k)
            params = {"n_trees": trees, "search_k": search_k}
            yield Setting("annoy_spotify", params, built, one)


LIBRARY = Library(settings, "annoy", originals="annoy")
