"""What a cell was compiled to is used again for the same cell, and for no other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kernel
import pytest

KEPT_CELLS = Path(__file__).resolve().parent.parent / "kept_cells.py"
CELL = """use fashion_knn::prelude::*;
let k = evcxr_variable_store.take_variable::<usize>(stringify!(k));
let n = evcxr_variable_store.take_variable::<usize>(stringify!(n));
n + k
"""
# Counts how often it runs, and writes and says what rustc does.
RUSTC = """#!{python}
import json, os, sys
from pathlib import Path
count = Path("count")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
source = next(argument for argument in sys.argv if argument.endswith(".rs"))
text = Path(source).read_text()
if text.startswith("error"):
    errors = [{{"level": "error", "code": code and {{"code": code}}, "spans": [1]}} for code in json.loads(text[5:].partition("//")[0])]
    errors.append({{"level": "error", "code": None, "spans": [], "message": "aborting due to these"}})
    print(*map(json.dumps, errors), sep="\\n", file=sys.stderr)
    sys.exit(1)
for name, written in [("libctx.so", text), ("ctx.d", f"libctx.so: {{source}}\\n\\n{{source}}:\\n{more}")]:
    path = Path("out", name)
    path.write_text(written)
    print(json.dumps({{"artifact": str(path), "emit": "link"}}), file=sys.stderr)
print(json.dumps({{"message": "a warning"}}), file=sys.stderr)
"""


class Cargo:
    """Calls the program as cargo does, in a folder of its own."""

    def __init__(self, folder: Path, more: str = ""):
        self.folder = folder
        for name in ["cells/src", "out"]:
            (folder / name).mkdir(parents=True)
        self.rustc = folder / "fake-rustc"
        self.rustc.write_text(RUSTC.format(python=sys.executable, more=more))
        self.rustc.chmod(0o755)
        self.library = folder / "libfashion_knn.rlib"
        self.library.write_text("the crate")

    def compile(self, cell: str, *more: str, name: str = "ctx", program: list[Path] | None = None) -> tuple[int, str]:
        """Its status, and what it said on stderr."""
        (self.folder / "cells/src/lib.rs").write_text(cell)
        program = program or [sys.executable, "-IS", KEPT_CELLS, self.folder / "kept"]
        command = [*program, self.rustc, "--crate-name", name, "cells/src/lib.rs", "--out-dir", self.folder / "out"]
        command += ["--extern", f"fashion_knn={self.library}", *more]
        told = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        return told.returncode, told.stderr

    def compiled(self) -> int:
        """How often rustc has run."""
        return int((self.folder / "count").read_text())

    def result(self) -> str:
        return (self.folder / "out/libctx.so").read_text()


def test_the_same_cell_is_compiled_once(tmp_path):
    cargo = Cargo(tmp_path)
    first = cargo.compile(CELL)
    loaded = (tmp_path / "out/libctx.so").stat().st_ino
    cargo.compile("another")
    assert cargo.compile(CELL) == first and first[0] == 0 and "a warning" in first[1]
    assert cargo.result() == CELL
    # The kernel may have the first one loaded: a library is never written over.
    assert (tmp_path / "out/libctx.so").stat().st_ino != loaded
    assert cargo.compiled() == 2


def test_variables_come_in_any_order(tmp_path):
    cargo = Cargo(tmp_path)
    lines = CELL.splitlines(keepends=True)
    cargo.compile(CELL)
    cargo.compile("".join([lines[0], lines[2], lines[1], lines[3]]))
    assert cargo.compiled() == 1
    # What is no line of evcxr's has its order.
    cargo.compile("".join([lines[3], *lines[:3]]))
    assert cargo.compiled() == 2


@pytest.mark.parametrize("change", ["source", "arguments", "library"])
def test_a_cell_with_another_meaning_is_compiled(tmp_path, change):
    cargo = Cargo(tmp_path)
    cargo.compile(CELL)
    match change:
        case "source":
            cargo.compile(CELL.replace("n + k", "n - k"))
        case "arguments":
            cargo.compile(CELL, "-Copt-level=2")
        case "library":  # of the same size
            os.utime(cargo.library, (0, 0))
            cargo.compile(CELL)
    assert cargo.compiled() == 2


@pytest.mark.parametrize("more", ["data.csv:", "# env-dep:K=7"])
def test_a_cell_that_read_something_else_is_not_kept(tmp_path, more):
    # rustc names in its dep-info what it read: a line for each file, with the files that come before it.
    more = more.replace("data.csv:", "libctx.so: cells/src/lib.rs data.csv")
    cargo = Cargo(tmp_path, more)
    cargo.compile(CELL)
    cargo.compile(CELL)
    assert cargo.compiled() == 2


@pytest.mark.parametrize(("codes", "compiled"), [(["E0277", "E0277"], 1), (["E0277", "E0382"], 2), (["E0277", None], 2), ([], 2)])
def test_of_errors_the_one_that_evcxr_mends_is_kept(tmp_path, codes, compiled):
    cargo = Cargo(tmp_path)
    first = cargo.compile(f"error{json.dumps(codes)}")
    assert first[0] == 1 and cargo.compile(f"error{json.dumps(codes)}") == first
    assert cargo.compiled() == compiled


def test_an_error_that_may_be_of_an_included_file_is_not_kept(tmp_path):
    cargo = Cargo(tmp_path)
    for compiled in [1, 2]:
        assert cargo.compile('error["E0277"] // include!("data.rs")')[0] == 1
        assert cargo.compiled() == compiled


def test_other_packages_are_not_kept(tmp_path):
    cargo = Cargo(tmp_path)
    kernel.lay_out_rustc(tmp_path / "in place of rustc", tmp_path / "kept")
    for name, compiled in [("pin", 1), ("pin", 2), ("ctx", 3), ("ctx", 3)]:
        assert cargo.compile(CELL, name=name, program=[tmp_path / "in place of rustc"])[0] == 0
        assert cargo.compiled() == compiled


@pytest.mark.parametrize("name", ["status", "stderr"])
def test_what_is_not_whole_is_compiled_again(tmp_path, name):
    cargo = Cargo(tmp_path)
    first = cargo.compile(CELL)
    next(tmp_path.glob("kept/*")).joinpath(name).unlink()
    for _ in range(2):
        assert cargo.compile(CELL) == first
    assert cargo.compiled() == 2


def test_what_cannot_be_kept_is_compiled_all_the_same(tmp_path):
    cargo = Cargo(tmp_path)
    (tmp_path / "kept").write_text("no folder")
    status, said = cargo.compile(CELL)
    assert (status, cargo.result()) == (0, CELL)
    assert [json.loads(line) for line in said.splitlines()][-1] == {"message": "a warning"}
