"""ScaNN (Google): a tree of lists, codes that weigh errors by direction, and a second look."""

import os

from peers.task import Library, Setting

# Lists that are probed, and rows that are compared exactly.
SEARCHES = ((2, 40), (5, 60), (10, 80), (20, 100), (40, 150), (80, 200))


def settings(task, leaves=(200, 600), searches=SEARCHES, sample=None):
    """`sample`: so many rows train the tree; all of them by default."""
    for count in leaves:
        built = build(task, count, sample or len(task.base))
        for probed, reorder in searches:
            params = {"num_leaves": count, "num_leaves_to_search": probed, "reorder": reorder}
            yield Setting("scann_google", params, built, **calls(built.index, probed, reorder))


def build(task, leaves, sample):
    from scann.scann_ops.py import scann_ops_pybind as scann

    def make():
        builder = scann.builder(task.base, 10, "squared_l2")
        builder = builder.tree(leaves, leaves, training_sample_size=sample)
        builder = builder.score_ah(2, anisotropic_quantization_threshold=float("nan"))
        return builder.reorder(100).set_n_training_threads(task.threads).build()

    def save(index, path):
        os.mkdir(path)
        # The paths in what it writes are its own folder's, so that the folder can be moved.
        index.serialize(path, relative_path=True)

    return task.build(make, save, scann.load_searcher, f"scann {leaves} {sample}")


def calls(index, probed, reorder):
    """One query, and many."""
    more = lambda k: (k, max(reorder, k), probed)

    def many(queries, k, threads=1):
        if threads == 1:
            return index.search_batched(queries, *more(k))[0]
        index.set_num_threads(threads)
        return index.search_batched_parallel(queries, *more(k))[0]

    one = lambda query, k: index.search(query, *more(k))[0]
    return {"one": one, "many": many, "together": True}


LIBRARY = Library(settings, "scann", originals="scann")
