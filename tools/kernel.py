"""The project's Jupyter kernel: evcxr_jupyter, whose cells use what cargo compiled for the tests.

    python tools/kernel.py install EVCXR   write the kernelspec into this virtual environment
    python tools/kernel.py build           compile the crate as the notebooks need it
    python tools/kernel.py launch FILE     what Jupyter runs: prepare a workspace, become evcxr

evcxr compiles each cell as a package `ctx` in a folder of its own (EVCXR_TMPDIR). Left to itself it
would resolve and compile every dependency there once more. So that folder is laid out as a cargo
workspace, and what is compiled comes from the checkout's target/:

    .evcxr/crate/           fashion-knn once more, but as a dylib: its manifest, links to its sources
    .evcxr/.cargo/          tells cargo to take that one wherever a package asks for fashion-knn
    .evcxr/kN/Cargo.toml    the workspace of one kernel, so that two notebooks can run at a time
    .evcxr/kN/Cargo.lock    the versions of the checkout's own Cargo.lock
    .evcxr/kN/pin/          depends on fashion-knn, always. Without it evcxr's first package, which
                            depends on nothing, would empty Cargo.lock
    .evcxr/kN/cells/        EVCXR_TMPDIR: evcxr writes its package here
    .evcxr/kN/cells/target/ hard links to what is compiled in the checkout's target/

Why a dylib: a cell then links with one shared object instead of 300 libraries. Why a copy of the
manifest and not a package that re-exports the crate: a cell that says `:dep fashion-knn = { path =
".." }` would link with the library itself, and nothing would load the re-export.
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
NAME = "fashion-knn"
RUSTFLAGS = "-Cprefer-dynamic"  # what evcxr compiles with; the Makefile sets the same

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
DYLIB_TOML = """
[lib]
crate-type = ["dylib"]
"""


def target_dir() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()


def host() -> str:
    command = ["rustc", "--print", "host-tuple"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def lay_out_crate() -> None:
    """Writes the package that is fashion-knn as a dylib."""
    crate = WORKSPACES / "crate"
    crate.mkdir(parents=True, exist_ok=True)
    for entry in ROOT.iterdir():
        link = crate / entry.name
        hidden = entry.name.startswith(".") or entry.name in ("Cargo.toml", "Cargo.lock", "target")
        if not hidden and not link.is_symlink():
            link.symlink_to(entry)
    write_if_new(crate / "Cargo.toml", (ROOT / "Cargo.toml").read_text() + DYLIB_TOML)
    write_if_new(WORKSPACES / ".cargo/config.toml", 'paths = ["crate"]\n')


def write_if_new(path: Path, text: str) -> None:
    """Writes a file that does not hold this yet: cargo compiles again what depends on a newer file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def lay_out(workspace: Path) -> Path:
    """Writes an empty workspace and returns the folder for evcxr's package."""
    cells = workspace / "cells"
    for folder, name, kind in [(cells, "ctx", "cdylib"), (workspace / "pin", "pin", "lib")]:
        (folder / "src").mkdir(parents=True, exist_ok=True)
        write_if_new(folder / "src/lib.rs", "")
        toml = PACKAGE_TOML.format(name=name, kind=kind, root=json.dumps(str(ROOT)))
        write_if_new(folder / "Cargo.toml", toml)
    write_if_new(workspace / "Cargo.toml", WORKSPACE_TOML)
    shutil.copyfile(ROOT / "Cargo.lock", workspace / "Cargo.lock")
    return cells


def build() -> int:
    """Compiles the dylib into the checkout's target folder, beside what the tests compile there."""
    lay_out_crate()
    lay_out(WORKSPACES / "build")
    env = dict(os.environ, CARGO_TARGET_DIR=str(target_dir()), RUSTFLAGS=RUSTFLAGS)
    command = ["cargo", "build", "--package", "pin", "--target", host()]
    return subprocess.run(command, cwd=WORKSPACES / "build", env=env).returncode


def share_compiled(target: Path) -> None:
    """Fills a kernel's target folder. Cargo writes to its notes, so these are copies; libraries are links."""
    shutil.rmtree(target, ignore_errors=True)
    for profile in ["debug", f"{host()}/debug"]:
        source = target_dir() / profile
        for folder in [".fingerprint", "build"]:
            shutil.copytree(source / folder, target / profile / folder, symlinks=True)
        (target / profile / "deps").mkdir(parents=True)
        for library in (source / "deps").glob("lib*"):
            link_or_copy(library, target / profile / "deps" / library.name)


def link_or_copy(source: Path, target: Path) -> None:
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
    lay_out_crate()
    cells = lay_out(free_workspace())
    share_compiled(cells / "target")
    # A copy of a notebook in another folder finds the data of this checkout all the same.
    os.environ.setdefault("FASHION_KNN_DATA", str(ROOT / "data"))
    os.environ.update(
        EVCXR_TMPDIR=str(cells),
        EVCXR_CONFIG_DIR=str(ROOT / "tools/evcxr"),
        # Read by the rust-analyzer inside evcxr, which infers the types of a cell's variables; for its
        # own builds evcxr sets RUSTFLAGS anew. Cargo.toml hides the dependencies from rust-analyzer:
        # their 400 crates would cost 30 s at every start.
        RUSTFLAGS="--cfg rust_analyzer",
    )
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"]:
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
