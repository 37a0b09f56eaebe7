"""FAISS (Meta): exact search, HNSW, and inverted lists, plain and with product codes."""

from peers.task import Library, Setting

EFS = (10, 20, 40, 80, 120, 200, 400, 800)


def simd():
    """"AVX512_VPOPCNT" and the like, by the names of our own levels."""
    import faiss

    said = faiss.SIMDConfig.get_level_name().upper()
    return next((known for known in ("avx512", "avx2") if known.upper() in said), "portable")


def made(base, spec):
    """The index of FAISS's factory string `spec` over the base."""
    import faiss

    index = faiss.index_factory(base.shape[1], spec)
    if hasattr(index, "hnsw"):
        index.hnsw.efConstruction = 200
    index.train(base)
    index.add(base)
    return index


def save(index, path):
    import faiss

    faiss.write_index(index, path)


def load(path):
    import faiss

    return faiss.read_index(path)


def built(task, spec):
    # Loaded before the build: only pools that are there can be given their threads.
    import faiss  # noqa: F401

    return task.build(lambda: made(task.base, spec), save, load, f"faiss {spec}")


def downcast(index):
    """The index as what it is: FAISS hands out parts of another as plain indexes."""
    import faiss

    return faiss.downcast_index(index)


def inner(index):
    """The index behind a transformation of the vectors."""
    return downcast(index.index)


def calls(index):
    """One query, and many."""
    many = lambda queries, k, _=1: index.search(queries, k)[1]
    return {"one": lambda query, k: many(query[None], k)[0], "many": many}


def flat(task):
    index = built(task, "Flat")
    yield Setting("faiss_flat", {}, index, **calls(index.index), together=True, few=300)


def hnsw(task, efs=EFS):
    found = built(task, "HNSW32,Flat")
    for ef in efs:
        found.index.hnsw.efSearch = ef
        params = {"m": 32, "ef_construction": 200, "ef_search": ef}
        yield Setting("faiss_hnsw", params, found, **calls(found.index))


# The lists' calls for many queries compare all of them with the centroids at once.


def ivf_flat(task):
    for nlist in (256, 1024):
        found = built(task, f"IVF{nlist},Flat")
        yield from ivf_flat_settings(nlist, found, (1, 2, 4, 8, 16, 32, 64))


def ivf_flat_settings(nlist, found, nprobes):
    for nprobe in nprobes:
        found.index.nprobe = nprobe
        params = {"nlist": nlist, "nprobe": nprobe}
        yield Setting("faiss_ivf_flat", params, found, **calls(found.index), together=True)


def ivf_pq(task):
    dim = task.base.shape[1]
    # The codes' parts must divide the dimension.
    half = next(m for m in (dim // 2, dim // 4, dim) if m and dim % m == 0)
    quarter = next(m for m in range(max(half // 4, 1), 0, -1) if dim % m == 0)
    for m, factors in ((half, (1, 5)), (quarter, (5, 20))):
        found = built(task, f"IVF256,PQ{m}x4fs,RFlat")
        yield from ivf_pq_settings(256, m, found, (2, 4, 8, 16, 32, 64), factors)


def ivf_pq_settings(nlist, m, found, nprobes, factors):
    lists = downcast(found.index.base_index)
    for nprobe in nprobes:
        for factor in factors:
            lists.nprobe, found.index.k_factor = nprobe, factor
            params = {"nlist": nlist, "m": m, "nprobe": nprobe, "k_factor": factor}
            yield Setting("faiss_ivf_pq", params, found, **calls(found.index), together=True)


def settings(task):
    yield from flat(task)
    yield from hnsw(task)
    yield from ivf_flat(task)
    yield from ivf_pq(task)


ABOUT = {"package": "faiss-cpu", "blas": "faiss", "simd": simd}
LIBRARY = Library(settings, **ABOUT, originals="brute_force,ivf_flat,ivf_pq")
