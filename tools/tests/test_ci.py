"""What .ci/run does with the folder of its cache, and what no file in git may hold."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_of_the_cache_only_what_is_ours_is_deleted(tmp_path):
    checkout, cache, programs = tmp_path / "checkout", tmp_path / "cache", tmp_path / "programs"
    for name in [".ci/run", "Cargo.lock", ".cargo/config.toml"]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    programs.mkdir()
    # The script installs nothing, and ends where it would begin to make anything.
    for name, status in [("make", 3), ("chromium", 0), ("npm", 0), ("curl", 0), ("cc", 0), ("strace", 0)]:
        (programs / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (programs / name).chmod(0o755)
    for name in ["photographs/one", "fashion-knn-ci/of another compiler/file"]:
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_text("kept?")
    path = f"{programs}:{os.environ['PATH']}"
    variables = os.environ | {"PATH": path, "FASHION_KNN_CACHE": str(cache), "CHROMIUM": "chromium"}
    result = subprocess.run(["bash", checkout / ".ci/run"], env=variables, capture_output=True, text=True)
    assert result.returncode == 3, result.stdout + result.stderr
    assert (cache / "photographs/one").read_text() == "kept?"
    [ours] = (cache / "fashion-knn-ci").iterdir()
    assert ours.name != "of another compiler"
    assert (checkout / "target").resolve() == (ours / "target").resolve()


def tracked(*patterns):
    """The files in git whose names match."""
    names = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in names.stdout.decode().split("\0") if name]


def test_no_file_holds_both_sides_of_a_merge():
    marker = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
    assert [path for path in tracked() if path.is_file() and marker.search(path.read_bytes())] == []


def test_shell_scripts_can_be_read():
    for script in tracked("*.sh", ".ci/run"):
        result = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
