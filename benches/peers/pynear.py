"""pynear: a vantage-point tree, exact."""

import pickle

from peers.task import Library, Setting


def settings(task):
    import pynear

    def make():
        index = pynear.VPTreeL2Index()
        index.set(task.base)
        return index

    built = task.build(make, save)
    many = lambda queries, k, _=1: built.index.searchKNN_arrays(queries, k)[0]
    one = lambda query, k: many(query[None], k)[0]
    yield Setting("pynear_vp_tree", {}, built, one, few=50)


def save(index, path):
    with open(path, "wb") as file:
        pickle.dump(index, file)


LIBRARY = Library(settings, "pynear", originals="brute_force,va_file")
