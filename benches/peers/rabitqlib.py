"""SymphonyQG, of RaBitQ's authors: a graph whose nodes hold the codes of their neighbours."""

from peers.task import Library, Setting

EFS = (10, 20, 30, 50, 80, 120, 200, 400, 800)


def settings(task, degrees=(32, 64), efs=EFS):
    for degree in degrees:
        built = build(task, degree)
        for ef in efs:
            many = search(built.index, ef)
            one = lambda query, k: many(query[None], k)[0]
            params = {"degree": degree, "ef": ef}
            yield Setting("symphony_qg", params, built, one, many)


def build(task, degree):
    import rabitqlib

    def make():
        index = rabitqlib.SymqgIndex(task.base.shape[1], degree, "l2")
        index.build(task.base, 400, num_threads=task.threads)
        return index

    save = lambda index, path: index.save(path)
    return task.build(make, save, rabitqlib.SymqgIndex.load, f"symphony_qg {degree}")


def search(index, ef):
    import numpy

    def many(queries, k, threads=1):
        # It refuses to keep fewer than it is asked for.
        found = index.search_batch(queries, k, max(ef, k), num_threads=threads)
        arrays = [numpy.asarray(part) for part in found]
        return next(part.astype(numpy.int64) for part in arrays if part.dtype.kind in "iu")

    return many


LIBRARY = Library(settings, "rabitqlib", originals="quantized_graph")
