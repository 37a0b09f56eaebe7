"""FAISS Panorama: rotated vectors are compared level by level, and most are left after the first.

The rotation is PCA without loss, so that `FlatL2Panorama16` is exact but for rounding.
"""

from peers import faiss
from peers.task import Library, Setting

# Into how many parts a vector is cut. The record calls them segments.
LEVELS = 16


def settings(task):
    dim = task.base.shape[1]
    found = faiss.built(task, f"PCA{dim},FlatL2Panorama{LEVELS}")
    params = {"segments": LEVELS}
    # A batch multiplies the rotation by all queries at once.
    flat = {"few": 300, "together": True}
    yield Setting("faiss_panorama", params, found, **faiss.calls(found.index), **flat)
    found = faiss.built(task, f"PCA{dim},IVF256,FlatPanorama{LEVELS}")
    inner = faiss.inner(found.index)
    for nprobe in (1, 2, 4, 8, 16, 32, 64):
        inner.nprobe = nprobe
        params = {"segments": LEVELS, "nlist": 256, "nprobe": nprobe}
        calls = faiss.calls(found.index)
        yield Setting("faiss_ivf_panorama", params, found, **calls, together=True)


LIBRARY = Library(settings, **faiss.ABOUT, originals="va_file")
