"""NGT (Yahoo): its graph ANNG, and with --slow the one of fewer edges, ONNG."""

import os
import tempfile

from peers.task import Built, Library, Setting, folder_size


def settings(task):
    import ngtpy

    for kind in ("anng", "onng") if task.slow else ("anng",):
        with tempfile.TemporaryDirectory() as folder:
            made, seconds, peak = task.timed(lambda: make(ngtpy, task, kind, folder))
            index = ngtpy.Index(made.encode(), read_only=True)
            built = Built(index, seconds, folder_size(made), task.threads, peak)
            for epsilon in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2):
                one = lambda query, k: [found[0] for found in index.search(query, k, epsilon)]
                params = {"edge_size": 100, "epsilon": epsilon}
                yield Setting(f"ngt_{kind}", params, built, one)
            index.close()


def make(ngtpy, task, kind, folder):
    """Builds a graph in `folder`; where it is."""
    path, optimised = os.path.join(folder, "anng"), os.path.join(folder, "onng")
    dim = task.base.shape[1]
    ngtpy.create(path.encode(), dim, distance_type="L2", edge_size_for_creation=100)
    index = ngtpy.Index(path.encode())
    index.batch_insert(task.base, num_threads=task.threads)
    index.save()
    index.close()
    if kind == "anng":
        return path
    optimizer = ngtpy.Optimizer(num_of_outgoings=10, num_of_incomings=100, log_disabled=True)
    optimizer.execute(path.encode(), optimised.encode())
    return optimised


LIBRARY = Library(settings, "ngt", originals="ngt")
