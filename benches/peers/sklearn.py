"""scikit-learn's three: a scan by products of matrices, a KD-tree, and a ball tree."""

import pickle

from peers.task import Library, Setting


def save(index, path):
    with open(path, "wb") as file:
        pickle.dump(index, file)


def settings(task):
    from sklearn.neighbors import NearestNeighbors

    for algorithm in ("brute", "kd_tree", "ball_tree"):
        model = NearestNeighbors(algorithm=algorithm, leaf_size=40, n_jobs=1)
        built = task.build(lambda: model.fit(task.base), save)
        many = lambda queries, k, _=1: built.index.kneighbors(queries, k, return_distance=False)
        one = lambda query, k: many(query[None], k)[0]
        name = f"sklearn_{algorithm}"
        if algorithm == "brute":
            yield Setting(name, {}, built, one, many, together=True, few=50)
        else:
            yield Setting(name, {"leaf_size": 40}, built, one, few=50)


LIBRARY = Library(settings, "scikit-learn", originals="kd_tree,ball_tree,va_file", blas="scipy")
