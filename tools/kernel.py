"""The project's Jupyter kernel: evcxr_jupyter with one build for cargo and for the notebooks.

    python tools/kernel.py install EVCXR   write the kernelspec into this virtual environment
    python tools/kernel.py build           compile the crate as the notebooks need it
    python tools/kernel.py launch FILE     what Jupyter runs: prepare a workspace, become evcxr

evcxr compiles each cell as the package `ctx` in a folder of its own (EVCXR_TMPDIR). Left to itself it would
resolve and compile every dependency there once more. So that folder is laid out as a cargo workspace

    .evcxr/kN/Cargo.toml, Cargo.lock     the versions of the checkout's own Cargo.lock
    .evcxr/kN/pin/                       depends on fashion-knn, always: keeps those versions in the lock,
                                         which evcxr's first, empty package would otherwise empty
    .evcxr/kN/cells/                     EVCXR_TMPDIR: evcxr writes its package here
    .evcxr/kN/cells/target/              hard links to what is compiled in .evcxr/build, whose dependencies
                                         are in turn hard links to the checkout's target/

A kernel has a workspace for itself, so that two notebooks can run at the same time. DESIGN.md, "Fast cells",
says what was measured.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKSPACES = ROOT / ".evcxr"
BUILD = WORKSPACES / "build"
NAME = "fashion-knn"
RUSTFLAGS = "-Cprefer-dynamic"  # evcxr's own, and .cargo/config.toml's: they must agree to the letter

WORKSPACE_TOML = """[workspace]
members = ["cells", "pin"]
resolver = "3"
"""
PACKAGE_TOML = """[package]
name = "{name}"
version = "1.0.0"
edition = "2024"

[lib]
crate-type = ["{kind}"]

[dependencies]
fashion-knn = {{ path = {root} }}
"""


def target_dir() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()


def host() -> str:
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return next(line.removeprefix("host: ") for line in version.splitlines() if line.startswith("host: "))


def lay_out(workspace: Path) -> Path:
    """Writes an empty workspace and returns the folder for evcxr's package. What is compiled there is kept."""
    cells = workspace / "cells"
    for folder, name, kind in [(cells, "ctx", "cdylib"), (workspace / "pin", "pin", "lib")]:
        (folder / "src").mkdir(parents=True, exist_ok=True)
        (folder / "src/lib.rs").write_text("")
        toml = PACKAGE_TOML.format(name=name, kind=kind, root=json.dumps(str(ROOT)))
        (folder / "Cargo.toml").write_text(toml)
    (workspace / "Cargo.toml").write_text(WORKSPACE_TOML)
    shutil.copyfile(ROOT / "Cargo.lock", workspace / "Cargo.lock")
    return cells


def build() -> int:
    """Compiles the crate once as evcxr will ask for it; its dependencies come from the checkout's target folder."""
    cells = lay_out(BUILD)
    share(target_dir(), cells / "target", of_crate=False)
    env = dict(os.environ, CARGO_TARGET_DIR=str(cells / "target"), RUSTFLAGS=RUSTFLAGS)
    return subprocess.run(["cargo", "build", "--target", host()], cwd=cells, env=env).returncode


def share(source: Path, target: Path, of_crate: bool) -> None:
    """Brings what is compiled in one target folder into another: libraries as hard links, cargo's notes as copies.

    The crate itself (`of_crate`) is its own affair: cargo names libfashion_knn.so without a hash, so that the
    library of `cargo test` and the notebooks' one, which differ, would overwrite each other in a common folder.
    """
    for profile in ["debug", f"{host()}/debug"]:
        for folder, copy in [(".fingerprint", copy_folder), ("build", copy_folder), ("deps", link_or_copy)]:
            here = target / profile / folder
            here.mkdir(parents=True, exist_ok=True)
            there = source / profile / folder
            for entry in os.scandir(there) if there.exists() else []:
                of_entry = "fashion-knn" in entry.name or "fashion_knn" in entry.name
                if of_entry and not of_crate or folder == "deps" and not is_library(entry.name):
                    continue
                if not is_current(entry, here / entry.name):
                    (shutil.copy2 if of_entry and entry.is_file() else copy)(entry.path, here / entry.name)


def is_library(name: str) -> bool:
    """Neither a test binary nor a cell of an earlier kernel."""
    return name.startswith("lib") and not name.startswith(("libcode_", "libctx"))


def is_current(entry: os.DirEntry, copy: Path) -> bool:
    try:
        return copy.stat().st_mtime_ns == entry.stat().st_mtime_ns
    except FileNotFoundError:
        return False


def copy_folder(source: str, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)  # ends with the folder's own time: is_current


def link_or_copy(source: str, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def free_workspace() -> Path:
    """The first workspace that no kernel holds; holds it until this process, and what it becomes, ends."""
    number = 1
    while True:
        workspace = WORKSPACES / f"k{number}"
        workspace.mkdir(parents=True, exist_ok=True)
        lock = os.open(workspace / "lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.set_inheritable(lock, True)
            return workspace
        except OSError:
            os.close(lock)
            number += 1


def launch(evcxr: str, connection_file: str) -> None:
    cells = lay_out(free_workspace())
    shutil.rmtree(cells / "target", ignore_errors=True)
    # From the checkout also what `make test` has checked without compiling: evcxr checks a cell that has an error.
    share(target_dir(), cells / "target", of_crate=False)
    share(BUILD / "cells/target", cells / "target", of_crate=True)
    os.environ.update(
        EVCXR_TMPDIR=str(cells),
        EVCXR_CONFIG_DIR=str(ROOT / "tools/evcxr"),
        # Seen by the rust-analyzer inside evcxr, which infers the types of a cell's variables; evcxr's own builds
        # set RUSTFLAGS anew. Cargo.toml hides the dependencies from it: their 400 crates cost 30 s a start.
        RUSTFLAGS="--cfg rust_analyzer",
    )
    for name in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"]:
        os.environ.pop(name, None)
    os.execv(evcxr, [evcxr, "--control_file", connection_file])


def install(evcxr: str) -> None:
    """Writes the kernelspec where the Jupyter of this virtual environment finds it, and nobody else."""
    folder = Path(sys.prefix) / "share/jupyter/kernels" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "argv": [sys.executable, str(Path(__file__).resolve()), "launch", str(Path(evcxr).resolve()), "{connection_file}"],
        "display_name": "Rust (fashion-knn)",
        "language": "rust",
        "interrupt_mode": "message",
    }
    temporary = folder / "kernel.json.tmp"
    temporary.write_text(json.dumps(spec, indent=1))
    temporary.replace(folder / "kernel.json")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["install", evcxr]:
            install(evcxr)
        case ["build"]:
            return build()
        case ["launch", evcxr, connection_file]:
            launch(evcxr, connection_file)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
