"""FAISS's RaBitQFastScan: lists of codes of a bit a value, scanned by registers, then refined."""

from peers import faiss
from peers.task import Library, Setting


def settings(task):
    dim = task.base.shape[1]
    # Its bound holds for vectors that were rotated at random.
    found = faiss.built(task, f"RR{dim},IVF256,RaBitQfs,RFlat")
    inner = faiss.inner(faiss.downcast(found.index.base_index))
    for nprobe in (2, 4, 8, 16, 32, 64):
        for factor in (5, 20):
            inner.nprobe, found.index.k_factor = nprobe, factor
            params = {"nlist": 256, "nbits": 1, "nprobe": nprobe, "k_factor": factor}
            calls = faiss.calls(found.index)
            yield Setting("faiss_ivf_rabitq", params, found, **calls, together=True)


LIBRARY = Library(settings, **faiss.ABOUT)
