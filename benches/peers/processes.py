"""Each library in a process of its own, and what it measured into the record."""

import importlib.metadata
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

from peers import environment
from peers.measuring import measure
from peers.task import Task

# What `measure --export` writes, and all that is read.
FILES = ("base.npy", "queries.npy", "distances.npy")


def child(library, plan):
    """Measures a library and prints a JSON line a row, as `measure --replace-from` reads them."""
    import numpy

    read = lambda name: numpy.load(os.path.join(plan.data, name))
    base, queries = (numpy.ascontiguousarray(read(name), "f4") for name in FILES[:2])
    distances = read(FILES[2])
    version = f"{library.package} {importlib.metadata.version(library.package)}"
    task = Task(base, plan.build_threads, plan.slow, version, plan.cache)
    for setting in library.settings(task):
        # The library is loaded now, and its BLAS with it.
        said = {
            "index": setting.index,
            "params": setting.params,
            "data": plan.name,
            "n": len(base),
            "d": base.shape[1],
            "simd": level(library),
            "commit": " + ".join(filter(None, [version, environment.blas(library.blas)])),
        }
        for k in plan.k:
            for figures in measure(setting, base, queries, distances, k, plan.threads):
                print(json.dumps({**said, "k": k, **figures}), flush=True)


def level(library):
    """The level of SIMD: the library's own word, or the highest that the processor offers it."""
    return library.simd() if library.simd else environment.simd(environment.flags())


def show(row):
    params = " ".join(f"{name}={value}" for name, value in row["params"].items())
    speed = f"recall {row['recall']:.4f}  {row['qps']:>8.0f} queries/s"
    batch = f"{row['qps_batch']:>8.0f} in a batch on {row['threads']}"
    head = f"{row['index']:<18} k {row['k']:>3}"
    print(f"{head}  {speed} {batch}  build {row['build_s']:>6.2f} s  {params}", flush=True)


def command_of(name, plan):
    """How a library's own process is started."""
    joined = lambda values: ",".join(map(str, values))
    command = [sys.executable, os.path.dirname(__file__), "--child", name, "--data", plan.data]
    command += ["--name", plan.name, "--k", joined(plan.k), "--threads", joined(plan.threads)]
    command += ["--build-threads", str(plan.build_threads)] + ["--slow"] * plan.slow
    command += ["--table", plan.table] if plan.table else []
    return command + (["--cache", plan.cache] if plan.cache else [])


def rows_of(name, command, variables):
    """What a library's own process prints, as lines; none, and a word why, if it fails."""
    rows = []
    # What it says goes to a file: a pipe that nobody reads meanwhile would stop it when full.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        pipes = {"stdout": subprocess.PIPE, "stderr": errors, "text": True}
        with subprocess.Popen(command, **pipes, env=variables) as process:
            for line in process.stdout:
                try:
                    row = json.loads(line)
                    show(row)
                except (ValueError, TypeError, KeyError):
                    # Some libraries print on their own.
                    continue
                rows.append(line)
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if process.returncode:
        ended = f"ended by signal {-process.returncode}"
        why = ended if process.returncode < 0 or not said else said[-1]
        print(f"{name}: skipped, {why}", flush=True)
        return []
    return rows


def put(plan, file):
    """Puts the rows of a file into the record, in place of those of the same indexes."""
    command = shlex.split(plan.measure)
    subprocess.run([*command, f"--replace-from={file}", f"--out={plan.out}"], check=True)


def ours(indexes, plan, folder):
    """Measures indexes of ours on the same files, into the record."""
    if not indexes:
        return
    command = shlex.split(plan.measure)
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True)
    known = "\n" + listed.stdout
    names = [name for name in indexes.split(",") if f"\n{name}:" in known]
    if not names:
        return
    out = os.path.join(folder, "ours.csv")
    command += [f"--data={plan.data}/base.npy", f"--queries={plan.data}/queries.npy"]
    command += [f"--name={plan.name}", f"--index={','.join(names)}"]
    command += [f"--k={','.join(map(str, plan.k))}", "--n-queries=1000000", f"--out={out}"]
    subprocess.run(command, check=True)
    put(plan, out)


def measure_beside_ours(name, library, plan):
    """Measures ours that belong beside a library, then the library."""
    with tempfile.TemporaryDirectory() as folder:
        if not plan.alone:
            ours(library.originals, plan, folder)
        threads = max(plan.build_threads, *plan.threads)
        rows = rows_of(name, command_of(name, plan), environment.variables(threads))
        if rows:
            file = pathlib.Path(folder, "theirs.jsonl")
            file.write_text("".join(rows), encoding="utf-8")
            put(plan, file)
