"""Kernels that start where it is hard to, and kernels that cannot: the reader is told why, in the notebook."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kernel
import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent.parent
EVCXR = json.loads((Path(sys.prefix) / "share/jupyter/kernels/fashion-knn/kernel.json").read_text())["argv"][3]


def checkout(folder: Path) -> Path:
    """A checkout with nothing compiled: enough for cells that use nothing of the crate."""
    for name in ["tools", ".cargo"]:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name not in ("tools", "target"):
            (folder / entry.name).symlink_to(entry)
    return folder


def compiled(folder: Path) -> Path:
    """As if `make .stamps/build` had been there, a minute ahead of its time."""
    host = subprocess.run(["rustc", "--print", "host-tuple"], check=True, capture_output=True, text=True).stdout.strip()
    dylib = folder / "target" / host / "debug/deps" / ("libfashion_knn_dylib" + (".dylib" if sys.platform == "darwin" else ".so"))
    dylib.parent.mkdir(parents=True)
    dylib.touch()
    os.utime(dylib, (time.time() + 60,) * 2)
    return folder


def outdated(folder: Path) -> dict:
    for dylib in folder.glob("target/*/debug/deps/libfashion_knn_dylib.*"):
        os.utime(dylib, (0, 0))
    return {}


def run(folder: Path, *cells: str, evcxr: str = EVCXR, cache: str = "/nowhere") -> subprocess.CompletedProcess:
    """`jupyter nbconvert --execute`, as any reader may call it, on a notebook of these cells."""
    kernels = folder / "jupyter/kernels/planted"
    kernels.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, str(folder / "tools/kernel.py"), "launch", evcxr, "{connection_file}"]
    spec = {"argv": argv, "display_name": "Planted", "language": "rust", "interrupt_mode": "message"}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    made = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "planted", "display_name": "Planted", "language": "rust"}
    nbformat.write(made, folder / "N.ipynb")
    ours = ("CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTFLAGS")  # the Makefile's
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"JUPYTER_PATH": str(folder / "jupyter"), "XDG_CACHE_HOME": cache}
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "ran", "N.ipynb"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_path_with_a_space_and_an_accent(tmp_path):
    folder = compiled(checkout(tmp_path / "amb espai i à"))
    # In the same home as Rust: there the path from a cell to libstd does not lead through "/".
    with tempfile.TemporaryDirectory(dir=Path.home(), prefix=".fashion-knn-test-") as cache:
        result = run(folder, "let k = 5;", "k + 1", cache=cache)
        assert result.returncode == 0, result.stdout + result.stderr
        ran = nbformat.read(folder / "ran.ipynb", as_version=4)
        assert ran.cells[1].outputs[0].data["text/plain"] == "6"
        assert len(list(Path(cache).iterdir())) == 1
        clean = [sys.executable, folder / "tools/kernel.py", "clean"]
        subprocess.run(clean, check=True, env=os.environ | {"XDG_CACHE_HOME": cache})
        assert not list(Path(cache).iterdir())


def dying(folder: Path, *lines: str) -> str:
    """A program that says these lines and fails, as evcxr does where it cannot start."""
    program = folder / "evcxr_jupyter"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}' >&2\n" for line in lines) + "exit 1\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda folder: {"evcxr": dying(folder, "warming up", "Error: no linker")}, "evcxr said\nwarming up\nError: no linker", id="evcxr dies"),
        pytest.param(lambda folder: {"evcxr": str(folder / "nowhere")}, "No such file or directory; `make .stamps/kernel`", id="no evcxr"),
        pytest.param(lambda folder: shutil.rmtree(folder / "target") or {}, "the crate is not compiled yet: run `make .stamps/build`", id="not compiled"),
        pytest.param(outdated, "the crate has changed since it was compiled: run `make .stamps/build`", id="outdated"),
        # As in a folder that is read-only: root may write to any other.
        pytest.param(lambda folder: (folder / ".evcxr").touch() or {}, "it must write to", id="not writable"),
    ],
)
def test_a_kernel_that_cannot_start_says_why(tmp_path, spoil, message):
    folder = compiled(checkout(tmp_path / "checkout"))
    result = run(folder, "1 + 1", **spoil(folder))
    assert result.returncode != 0
    assert "The Rust kernel cannot start: " in result.stderr, result.stderr
    assert message in result.stderr, result.stderr


def test_what_was_compiled_against_another_build_is_not_kept(tmp_path):
    folder = compiled(checkout(tmp_path / "checkout"))
    target, code = folder / ".evcxr/k1/cells/target", "import kernel; kernel.lay_out(kernel.workspaces() / 'k1')"
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}

    def kept() -> bool:
        subprocess.run([sys.executable, "-c", code], cwd=folder / "tools", check=True, env=environment)
        return target.exists()

    kept()
    target.mkdir()
    assert kept()
    # Cargo writes a new file: this one lives on in the workspace.
    dylib = next(folder.glob("target/*/debug/deps/libfashion_knn_dylib.*"))
    dylib.unlink()
    dylib.touch()
    os.utime(dylib, (time.time() + 120,) * 2)
    assert not kept()


def test_the_same_cells_again_are_not_compiled(tmp_path):
    folder = compiled(checkout(tmp_path / "checkout"))
    kept = []
    for _ in range(2):
        result = run(folder, "let k = 5; let n = 7;", "k + n")
        assert result.returncode == 0, result.stdout + result.stderr
        kept.append({(cell.name, cell.stat().st_ino) for cell in folder.glob(".evcxr/k1/cells/target/kept/*")})
    # Two cells, and one with which evcxr begins. What is compiled again is another folder.
    assert len(kept[0]) == 3 and kept[0] == kept[1]


def test_of_the_kept_cells_the_last_used_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "KEPT_CELLS", 2)
    for age, name in enumerate(["b", "c", "a"]):
        (tmp_path / "kept" / name).mkdir(parents=True)
        os.utime(tmp_path / "kept" / name, (1_000 - age,) * 2)
    kernel.lay_out_rustc(tmp_path / "rustc", tmp_path / "kept")
    assert {cell.name for cell in (tmp_path / "kept").iterdir()} == {"b", "c"}


def test_cells_know_the_crate_and_its_types():
    made = new_notebook()
    made.metadata["kernelspec"] = {"name": "fashion-knn", "display_name": "Rust", "language": "rust"}
    cells = [
        ':dep fashion-knn = { path = ".." }\nuse fashion_knn::prelude::*;',
        # Without its type, which rust-analyzer reads in the sources.
        "let rows = Arc::new(Vectors::from_array(fashion_knn::ndarray::array![[0.0f32], [5.0]].view())?);",
        "let index = BruteForce::build(rows.clone(), BruteForceParams::default())?;",
        "index.query(&[4.0f32][..], 1)?[0].id",
        # Of another crate, from where its types are the library's own.
        'fashion_knn::polars::df!("a" => [1, 2])?.height()',
        # Of the standard library.
        "let named = std::collections::HashMap::from([(\"a\", vec![1.5f32, 2.0])]);",
        "let longest = named.values().map(Vec::len).max();",
        "longest.unwrap_or(0) + 1",
    ]
    made.cells = [new_code_cell(cell) for cell in cells]
    NotebookClient(made, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    shown = [cell.outputs[0].data["text/plain"] for cell in made.cells if cell.outputs]
    assert shown == ["1", "2", "3"]
