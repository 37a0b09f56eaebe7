"""benches/peers: how recall is counted, and that a library is held to what it was told."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHES = Path(__file__).resolve().parent.parent.parent / "benches"
sys.path.insert(0, str(BENCHES))

from peers import environment, measuring, processes
from peers.libraries import LIBRARIES
from peers.sift1m import TABLE
from peers.task import Built, Setting, keep

HAS_NUMPY = importlib.util.find_spec("numpy") is not None


def test_a_row_counts_once_and_only_if_it_is_one():
    assert measuring.valid([3, 3, -1, 9, 7], k=4, rows=9) == [3]
    assert measuring.valid([3, 3, -1, 8, 7], k=9, rows=9) == [3, 7, 8]


def test_as_near_as_the_true_one_is_a_hit():
    limit = 2.0
    near = [1.0, limit, limit * (1 + 0.9e-6)]
    assert measuring.hits([*near, limit * (1 + 1.1e-6), math.inf], limit) == len(near)
    assert measuring.hits([0.0, 0.0, 1e-9], 0.0) == 2


@pytest.mark.skipif(not HAS_NUMPY, reason="numpy is the libraries' own, no part of the report")
def test_recall_is_the_share_that_was_found_by_distance():
    import numpy

    base = numpy.array([[0, 0], [3, 4], [4, 3], [9, 9]], "f4")
    queries = numpy.zeros((2, 2), "f4")
    # Rows 1 and 2 are equally far: either is the second nearest.
    distances = numpy.array([[0, 5], [0, 5]])
    found = lambda first, second: measuring.recall(base, queries, distances, [first, second], 2)
    assert found([0, 1], [0, 2]) == 1.0
    assert found([0, 0], [2, 3]) == 0.5
    assert found([-1, 7], []) == 0.0


def pool(threads, architecture="SkylakeX"):
    return {"internal_api": "openblas", "num_threads": threads, "architecture": architecture}


def test_a_pool_of_more_threads_or_of_other_kernels_is_an_error():
    environment.check_pools([pool(1), {"internal_api": "openmp", "num_threads": 1}], 1, "skylakex")
    with pytest.raises(environment.NotAsTold, match="openblas has 2 threads, not 1"):
        environment.check_pools([pool(1), pool(2)], 1, "SkylakeX")
    with pytest.raises(environment.NotAsTold, match="kernels of Barcelona, not of SkylakeX"):
        environment.check_pools([pool(2, "Barcelona")], 2, "SkylakeX")


def test_work_on_more_processors_than_threads_is_an_error():
    environment.check_processors(used_s=2.2, seconds=2.0, threads=1)
    environment.check_processors(used_s=3.9, seconds=2.0, threads=2)
    # Too short to be told.
    environment.check_processors(used_s=0.2, seconds=0.1, threads=1)
    with pytest.raises(environment.NotAsTold, match="1.9 processors were busy, on 1 thread"):
        environment.check_processors(used_s=3.8, seconds=2.0, threads=1)


@pytest.mark.parametrize(
    ("flags", "kernels", "level"),
    [("sse2 avx2 avx512f", "SkylakeX", "avx512"), ("avx2", "Haswell", "avx2"), ("sse2", None, "portable")],
)
def test_openblas_is_told_the_processor(flags, kernels, level, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(f"model name\t: x\nflags\t\t: {flags}\nflags : other\n")
    has = environment.flags(info)
    assert (environment.core_type(has), environment.simd(has)) == (kernels, level)
    assert environment.flags(tmp_path / "missing") == set()


def test_threads_are_set_and_the_users_kernels_stay(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    made = environment.variables(3)
    assert {made[name] for name in environment.THREADS} == {"3"}
    assert made["OPENBLAS_CORETYPE"] == "Zen"


ROW = {"index": "a", "params": {}, "k": 1, "threads": 1, "recall": 1.0, "qps": 1.0, "qps_batch": 1.0, "build_s": 0.0}


def python(code):
    return [sys.executable, "-c", code]


def test_rows_are_kept_and_what_a_library_prints_is_not(capsys):
    line = json.dumps(ROW)
    lines = processes.rows_of("a", python(f"print('Building...'); print('3'); print({line!r})"), None)
    assert [json.loads(line) for line in lines] == [ROW]
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (f"print({json.dumps(ROW)!r}); raise OSError('no such thing')", "OSError: no such thing"),
        ("import os; os.abort()", "ended by signal 6"),
        ("import no_such_library", "No module named 'no_such_library'"),
    ],
)
def test_a_library_that_fails_is_named_and_has_no_rows(code, why, capsys):
    assert processes.rows_of("a", python(code), None) == []
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("a: skipped, ") and why in said


def test_one_that_fails_does_not_stop_the_rest(monkeypatch, tmp_path):
    codes = {"bad": "raise OSError('no')", "good": f"print({json.dumps(ROW)!r})"}
    monkeypatch.setattr(processes, "command_of", lambda name, plan: python(codes[name]))
    record = tmp_path / "record"
    script = "import sys; open({!r}, 'a').write(open(sys.argv[1].split('=')[1]).read())"
    measure = f'{sys.executable} -c "{script.format(str(record))}"'
    plan = SimpleNamespace(alone=True, measure=measure, out="o", build_threads=1, threads=[1])
    for name in ("bad", "good"):
        processes.measure_beside_ours(name, LIBRARIES["annoy"], plan)
    assert [json.loads(line) for line in record.read_text().splitlines()] == [ROW]


def test_each_number_of_threads_is_a_row_and_single_queries_have_one(monkeypatch):
    monkeypatch.setattr(environment, "limit", lambda threads: None)
    monkeypatch.setattr(measuring, "recall", lambda *_: 0.5)
    asked = []
    many = lambda queries, k, threads: asked.append(threads) or [[0] * k for _ in queries]
    built = Built(None, 2.0, 10, 4, None)
    setting = Setting("a", {}, built, lambda query, k: [0] * k, many)
    rows = list(measuring.measure(setting, [], ["q"] * 5, [], 1, [1, 4]))
    assert [row["threads"] for row in rows] == [1, 4] and asked == [1, 1, 4, 4]
    assert rows[0]["qps"] == rows[1]["qps"] and rows[0]["build_threads"] == 4
    setting.many = None
    assert [row["threads"] for row in measuring.measure(setting, [], ["q"], [], 1, [1, 4])] == [1]


def test_an_index_is_kept_whole(tmp_path):
    saved, folder = tmp_path / "saved", tmp_path / "kept"
    (saved / "index").mkdir(parents=True)
    (saved / "index" / "part").write_text("new")
    folder.mkdir()
    (folder / "old").write_text("of an earlier run")
    keep(saved, folder, {"seconds": 1.0})
    assert sorted(path.name for path in folder.iterdir()) == ["built.json", "index"]
    assert json.loads((folder / "built.json").read_text()) == {"seconds": 1.0}


def run(*arguments):
    command = [sys.executable, str(BENCHES / "peers"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--only=faiss,fais"], "no library fais; there are faiss, "),
        (["--table=sift1m", "--only=annoy"], "no library annoy; there are faiss_flat, "),
        (["--table=none"], "invalid choice: 'none'"),
        (["--threads=200000"], "this machine runs 1 to "),
        (["--build-threads=-1"], "this machine runs 1 to "),
        (["--k=0"], "0; expected numbers over zero"),
        (["--k=ten"], "ten; expected numbers over zero"),
        (["--out="], "--out and --measure are needed"),
        ([], "has no base.npy, queries.npy, distances.npy"),
    ],
)
def test_bad_arguments_are_said(arguments, why, tmp_path):
    usual = ["--data", str(tmp_path), "--name=x", "--out=o.csv", "--measure=true"]
    ended = run(*usual, *arguments)
    assert ended.returncode == 2 and why in ended.stderr and "Traceback" not in ended.stderr


def test_every_library_is_on_the_list_that_is_installed():
    lines = (BENCHES / "peers.txt").read_text(encoding="utf-8").splitlines()
    listed = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert {library.package for library in [*LIBRARIES.values(), *TABLE.values()]} <= listed
