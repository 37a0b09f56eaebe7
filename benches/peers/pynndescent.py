"""PyNNDescent: a graph of neighbours made by descent, pruned. Its code is compiled by Numba."""

import pickle

from peers.task import Library, Setting


def settings(task):
    from pynndescent import NNDescent

    def make():
        how = {"n_neighbors": 40, "metric": "euclidean", "random_state": 1}
        index = NNDescent(task.base, n_jobs=task.threads, **how)
        index.prepare()
        return index

    # Numba compiles what the first build and the first queries need; that is no part of a build.
    warm = NNDescent(task.base[:1_000], n_neighbors=40, n_jobs=task.threads, random_state=1)
    warm.prepare()
    built = task.build(make, save)
    for epsilon in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4):
        many = search(built.index, epsilon)
        params = {"degree": 40, "epsilon": epsilon}
        yield Setting("pynndescent", params, built, lambda query, k: many(query[None], k)[0], many)


def save(index, path):
    with open(path, "wb") as file:
        pickle.dump(index, file)


def search(index, epsilon):
    def many(queries, k, _=1):
        return index.query(queries, k, epsilon)[0]

    return many


LIBRARY = Library(settings, "pynndescent")
