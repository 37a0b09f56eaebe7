"""Voyager (Spotify): HNSW, Annoy's successor there."""

from peers.task import Library, Setting

EFS = (10, 20, 40, 80, 120, 200, 400, 800)


def settings(task):
    import voyager

    def make():
        how = {"M": 16, "ef_construction": 200, "random_seed": 1}
        index = voyager.Index(voyager.Space.Euclidean, task.base.shape[1], **how)
        index.add_items(task.base, num_threads=task.threads)
        return index

    built = task.build(make, lambda index, path: index.save(path))
    for ef in EFS:
        many = search(built.index, ef)
        params = {"m": 16, "ef_construction": 200, "ef": ef}
        yield Setting("voyager", params, built, lambda query, k: many(query[None], k)[0], many)


def search(index, ef):
    def many(queries, k, threads=1):
        # It refuses to keep fewer than it is asked for.
        return index.query(queries, k, num_threads=threads, query_ef=max(ef, k))[0]

    return many


LIBRARY = Library(settings, "voyager")
