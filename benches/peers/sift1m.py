"""The handout's table, of a million SIFT descriptors: `--table sift1m`.

Its rows are Flat, HNSW and IVF16384,Flat of FAISS and NMSLIB; codes (IVF16384,PQ) and the strongest
libraries of today stand beside them. Each index is a process, so that one failing loses nothing.
"""

from peers import faiss, hnswlib, nmslib, rabitqlib, scann
from peers.task import Built, Library

# From a recall of about .80 to .999 on a million descriptors, k = 10.
EFS = (16, 32, 64, 128, 256, 512)
NPROBES = (4, 16, 32, 64, 128, 256)
NLIST = 16_384
# k-means over 16,384 lists is 4e12 multiply-adds a round. FAISS makes 25, of which the last change
# little; ten bring the table into an hour.
ROUNDS = 10
# Parts of the product codes, of half a byte each: 32 bytes a row.
PARTS = 64


def lists(base):
    """As many as the handout has; fewer over a base that could not fill them."""
    return min(NLIST, max(len(base) // 40, 1))


def centroids(task):
    """The centroids of the lists, which all IVF indexes share, and what they have cost."""
    import faiss as library

    def make():
        dim, nlist = task.base.shape[1], lists(task.base)
        quantizer = library.IndexFlatL2(dim)
        clustering = library.Clustering(dim, nlist)
        clustering.niter, clustering.seed = ROUNDS, 1
        clustering.train(task.base, quantizer)
        return quantizer

    return task.build(make, faiss.save, faiss.load, f"faiss centroids {lists(task.base)} {ROUNDS}")


def with_centroids(built, first):
    """An IVF index and its centroids as one build."""
    peaks = [peak for peak in (built.peak_bytes, first.peak_bytes) if peak]
    seconds, peak = built.seconds + first.seconds, max(peaks, default=None)
    return Built(built.index, seconds, built.memory_bytes, built.threads, peak)


def ivf(task):
    import faiss as library

    first = centroids(task)
    dim, nlist = task.base.shape[1], lists(task.base)

    def filled(index):
        # FAISS makes no centroids where the quantizer has as many as there are lists.
        index.train(task.base)
        index.add(task.base)
        return index

    flat = lambda: filled(library.IndexIVFFlat(first.index, dim, nlist))
    built = task.build(flat, faiss.save, faiss.load, f"faiss ivf flat {nlist} {ROUNDS}")
    yield from faiss.ivf_flat_settings(nlist, with_centroids(built, first), NPROBES)

    def refined():
        codes = library.IndexIVFPQFastScan(first.index, dim, nlist, PARTS, 4)
        index = library.IndexRefineFlat(codes)
        # The codes belong to Python otherwise, and would be freed with it.
        index.own_fields = True
        codes.this.disown()
        return filled(index)

    built = task.build(refined, faiss.save, faiss.load, f"faiss ivf pq {nlist} {PARTS} {ROUNDS}")
    joined = with_centroids(built, first)
    yield from faiss.ivf_pq_settings(nlist, PARTS, joined, NPROBES, (4, 16))


# Lists probed, rows compared exactly.
SCANN = ((8, 40), (16, 80), (32, 120), (64, 200), (128, 300), (256, 500))
TABLE = {
    "faiss_flat": Library(faiss.flat, **faiss.ABOUT),
    "faiss_hnsw": Library(lambda task: faiss.hnsw(task, EFS), **faiss.ABOUT),
    "faiss_ivf": Library(ivf, **faiss.ABOUT),
    "nmslib": Library(lambda task: nmslib.settings(task, 200, 0, EFS), "nmslib"),
    "hnswlib": Library(lambda task: hnswlib.settings(task, (16,), 200, EFS), "hnswlib"),
    "scann": Library(lambda task: scann.settings(task, (2_000,), SCANN, 250_000), "scann"),
    "symphony_qg": Library(lambda task: rabitqlib.settings(task, (32,), EFS), "rabitqlib"),
}
