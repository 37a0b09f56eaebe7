"""Times and recall of one setting of a library."""

from peers import environment

# How much farther than the true k-th neighbour a hit may be, as a share of that distance.
TOLERANCE = 1e-6
# A round that took so many seconds is not repeated: single queries, as with ours, and batches.
LONG_ROUND_S, LONG_BATCH_S = 0.5, 5.0
# More single queries say nothing more of a latency; their recall is that of all queries in a batch.
SINGLES = 2_000


def valid(ids, k, rows):
    """Those of the first k ids that are rows, each once."""
    return sorted({int(row) for row in list(ids)[:k] if 0 <= row < rows})


def hits(lengths, limit):
    """How many of the distances are as small as that of the true k-th neighbour."""
    return sum(1 for length in lengths if length <= limit * (1 + TOLERANCE))


def recall(base, queries, distances, found, k):
    """The share of the true k nearest that was found, by distance: see the head of `__main__`."""
    import numpy

    total = 0
    for query, limits, ids in zip(queries, distances, found):
        rows = base[valid(ids, k, len(base))].astype(numpy.float64)
        lengths = numpy.sqrt(((rows - query.astype(numpy.float64)) ** 2).sum(1))
        total += hits(lengths, limits[k - 1])
    return total / (len(found) * k)


def one_by_one(setting, queries, k):
    """Seconds of each query, and what was found: the faster of two rounds, unless one is long."""
    rounds = []
    for _ in range(2):
        seconds, found = [], []

        def ask():
            for query in queries:
                taken, ids = environment.elapsed(lambda: setting.one(query, k))
                seconds.append(taken)
                found.append(ids)

        environment.timed(ask, 1)
        rounds.append((seconds, found))
        if sum(seconds) > LONG_ROUND_S:
            break
    return min(rounds, key=lambda one: sum(one[0]))


def batch(setting, queries, k, threads):
    """Queries a second in one call, and what was found: the faster of two, unless one is long."""
    environment.limit(threads)
    rounds = []
    for _ in range(2):
        rounds.append(environment.timed(lambda: setting.many(queries, k, threads), threads))
        if rounds[-1][0] > LONG_BATCH_S:
            break
    seconds, found = min(rounds, key=lambda one: one[0])
    return len(queries) / seconds, found


def latency_us(seconds, share):
    """The time within which this share of the queries was answered."""
    place = max(-int(-share * len(seconds) // 1), 1)
    return sorted(seconds)[place - 1] * 1e6


def measure(setting, base, queries, distances, k, threads):
    """The figures of one setting: a row for each number of threads.

    Single queries are asked on one thread. Without a call over many queries there is nothing that
    more threads could do.
    """
    some = queries[: min(setting.few or SINGLES, len(queries))]
    environment.limit(1)
    # Caches and the processor's clock need a few queries to settle.
    for query in some[:20]:
        setting.one(query, k)
    seconds, found = one_by_one(setting, some, k)
    qps = qps_batch = len(some) / sum(seconds)
    if setting.many:
        qps_batch, found = batch(setting, queries, k, 1)
        if not setting.together:
            # Single queries without what Python costs.
            qps = max(qps, qps_batch)
    figures = {
        "recall": recall(base, queries, distances, found, k),
        "qps": qps,
        "p50_us": latency_us(seconds, 0.5),
        "p99_us": latency_us(seconds, 0.99),
        "build_s": setting.built.seconds,
        "memory_bytes": int(setting.built.memory_bytes),
        "build_threads": setting.built.threads,
        "build_peak_bytes": setting.built.peak_bytes,
    }
    for count in threads:
        if count > 1 and not setting.many:
            continue
        qps_count = qps_batch if count == 1 else batch(setting, queries, k, count)[0]
        yield {"threads": count, **figures, "qps_batch": max(qps, qps_count)}
