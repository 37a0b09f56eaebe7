"""Threads, BLAS and SIMD of a library's process: set before the library loads, checked after.

A library that runs on more threads than it was told, or multiplies by the wrong kernels, gives
figures that look right. Both are therefore checked rather than trusted: thread pools that can be
asked are asked, and the processor time of every timed piece of work is compared with the clock.
"""

import os
import pathlib
import time

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
# Processor time over what the threads allow, as a share of a processor: the process has a few
# threads more that mostly sleep. And below so many seconds the two clocks say too little.
SPARE, SHORT_S = 0.25, 0.2


class NotAsTold(RuntimeError):
    """A library does not run as it was told to."""


def flags(cpuinfo="/proc/cpuinfo"):
    """What the processor can do, as Linux names it; nothing elsewhere."""
    try:
        text = pathlib.Path(cpuinfo).read_text(encoding="utf-8")
    except OSError:
        return set()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()


def core_type(has):
    """The kernels that OpenBLAS shall take on a processor with these flags; None: its own choice.

    FAISS's wheel brings an OpenBLAS of 2021, which takes later processors for much older ones.
    """
    if "avx512f" in has:
        return "SkylakeX"
    if "avx2" in has:
        return "Haswell"
    return None


def simd(has):
    """The highest level that the processor offers a library, by the names of our own levels."""
    if "avx512f" in has:
        return "avx512"
    return "avx2" if "avx2" in has else "portable"


def variables(threads):
    """The environment of a library's process. What the user has set for OpenBLAS stays."""
    made = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    if kernels := core_type(flags()):
        made.setdefault("OPENBLAS_CORETYPE", kernels)
    return made


def limit(threads):
    """Gives the pools of OpenMP and BLAS in this process so many threads, and looks whether."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=threads)
    check_pools(threadpoolctl.threadpool_info(), threads)


def check_pools(pools, threads, wanted=None):
    """Raises if a pool has more threads, or an OpenBLAS other kernels than it was told."""
    wanted = wanted or os.environ.get("OPENBLAS_CORETYPE")
    for pool in pools:
        name = pool.get("prefix") or pool.get("internal_api")
        if (pool.get("num_threads") or 1) > threads:
            raise NotAsTold(f"{name} has {pool['num_threads']} threads, not {threads}")
        kernels = pool.get("architecture")
        if pool.get("internal_api") == "openblas" and wanted and kernels.lower() != wanted.lower():
            raise NotAsTold(f"{name} takes the kernels of {kernels}, not of {wanted}")


def check_processors(used_s, seconds, threads):
    """Raises if work has used more processors than it was given threads."""
    if seconds > SHORT_S and used_s > seconds * (threads + SPARE):
        used = used_s / seconds
        raise NotAsTold(f"{used:.1f} processors were busy, on {threads} thread(s)")


def elapsed(work):
    """Seconds, and what `work()` returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def timed(work, threads):
    """Seconds, and what `work()` returns. The processor time must be that of so many threads."""
    used = time.process_time()
    seconds, result = elapsed(work)
    check_processors(time.process_time() - used, seconds, threads)
    return seconds, result


def blas(part):
    """The BLAS whose file has `part` in its path: "OpenBLAS 0.3.15 SkylakeX"; empty if none."""
    import threadpoolctl

    for pool in threadpoolctl.threadpool_info():
        if part and pool["user_api"] == "blas" and part in pool["filepath"]:
            name = {"openblas": "OpenBLAS", "mkl": "MKL"}.get(pool["internal_api"], "BLAS")
            words = (name, pool.get("version"), pool.get("architecture"))
            return " ".join(word for word in words if word)
    return ""


def reset_peak():
    """Forgets the most memory that this process has held so far, where the system can (Linux)."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass


def peak_bytes():
    """The most memory that this process has held since `reset_peak`; None where it is not told."""
    try:
        status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
