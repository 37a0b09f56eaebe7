"""The project's Jupyter kernel: evcxr_jupyter, whose cells use what cargo compiled for the tests.

    python tools/kernel.py install EVCXR         write the kernelspec into this virtual environment
    python tools/kernel.py build                 compile the crate as the notebooks need it
    python tools/kernel.py launch EVCXR FILE     what Jupyter runs: prepare a workspace, run evcxr in it
    python tools/kernel.py clean                 remove the workspaces

evcxr compiles each cell as a package `ctx` in a folder of its own (EVCXR_TMPDIR). Left to itself it
would resolve and compile every dependency there once more. So a cell depends on a package of no
dependencies, which hands on what was compiled in the checkout's target/:

    .evcxr/crate/           fashion-knn once more, but as a dylib: its manifest, links to its sources
    .evcxr/kN/              the workspace of one kernel, so that two notebooks can run at a time
    .evcxr/kN/lib/          a hard link to the dylib
    .evcxr/kN/stub/         a package `fashion-knn` that is `pub use fashion_knn_dylib::*`
    .evcxr/kN/.cargo/       tells cargo to take that one wherever a package asks for fashion-knn, and how to compile cells
    .evcxr/kN/Cargo.lock    the versions of the checkout's own Cargo.lock
    .evcxr/kN/pin/          depends on fashion-knn, always. Without it evcxr's first package, which
                            depends on nothing, would empty Cargo.lock
    .evcxr/kN/cells/        EVCXR_TMPDIR: evcxr writes its package here
    .evcxr/kN/rustc         what cargo runs in place of rustc: it keeps compiled cells (kept_cells.py)
    .evcxr/library/         links to the sources of the standard library that rust-analyzer reads

Why a dylib: a cell then links with one shared object instead of 300 libraries. Why the stub: with
the crate itself cargo looks at 490 packages before each cell: a third of what an empty cell costs.
"""

import ctypes
import fcntl
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "fashion-knn"
RUSTFLAGS = "-Cprefer-dynamic"  # what evcxr compiles with; the Makefile sets the same
DYLIB_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
LIBRARY_PATH = "DYLD_FALLBACK_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
KEPT_CELLS = 2_000  # of 200 KB at most; a notebook has 50
TOLD_LINES = 12  # of what evcxr said last, when it dies
PR_SET_PDEATHSIG = 1  # Linux, linux/prctl.h


class CannotStart(Exception):
    """Why there is no kernel, in a sentence for whoever opened the notebook."""


def workspaces() -> Path:
    """Where the kernels' workspaces are: in the checkout, or in the user's cache if its path has a space.

    evcxr tells its child process which file to load by a line "LOAD_AND_RUN FILE FUNCTION", and the child splits it at
    spaces (evcxr 0.22, runtime.rs).
    """
    if not has_space(ROOT):
        return ROOT / ".evcxr"
    name = f"{NAME}-{hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:12]}"
    caches = [os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~/.cache"), tempfile.gettempdir()]
    for cache in filter(None, caches):
        if os.path.isabs(cache) and not has_space(cache):
            return Path(cache) / name
    raise CannotStart(f"evcxr needs a folder without a space in its path, and there is none among {caches}: set XDG_CACHE_HOME")


def has_space(path: Path | str) -> bool:
    return any(letter.isspace() for letter in str(path))


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
# `links` names the libraries that cargo is told of in CARGO_CONFIG. It asks for a build script, which is not run then.
STUB_TOML = """[package]
name = "fashion-knn"
version = {version}
edition = "2024"
links = "fashion_knn"

[features]
{features}
"""
# `ctx` is a cell. It is compiled while its reader waits, and calls the crate, which is compiled at level 3, for all that
# takes long. An incremental build would write down what the next cell, another source, has little use of. (Without
# `lto` rustc takes a fifth less, but the loops of Apartat A a third more.)
CARGO_CONFIG = """paths = ["stub"]

[build]
rustc-wrapper = {rustc}

[profile.dev.package.ctx]
opt-level = 1
incremental = false

[target.{host}.fashion_knn]
rustc-link-search = {folders}
"""
# `ctx` is a cell. For all else, and rust-analyzer asks rustc much, Python is not started.
RUSTC = """#!/bin/sh
case " $* " in
    *" --crate-name ctx "*) exec {kept_cells} "$@" ;;
    *) exec "$@" ;;
esac
"""
DYLIB = "fashion_knn_dylib"
DYLIB_TOML = f"""
[lib]
name = "{DYLIB}"
crate-type = ["dylib"]

[workspace]
"""


def target_dir() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute()


@functools.cache
def rustc_says() -> list[str]:
    """The host's target, and the folder of its standard library."""
    if not shutil.which("rustc"):
        raise CannotStart("rustc is not on Jupyter's PATH: install Rust, or start Jupyter from a shell that has it")
    command = ["rustc", "--print", "host-tuple", "--print", "target-libdir"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()


def host() -> str:
    return rustc_says()[0]


def lay_out_crate() -> None:
    """Writes the package that is fashion-knn as a dylib."""
    crate = workspaces() / "crate"
    crate.mkdir(parents=True, exist_ok=True, mode=0o700)
    for entry in ROOT.iterdir():
        link = crate / entry.name
        hidden = entry.name.startswith(".") or entry.name in ("Cargo.toml", "Cargo.lock", "target")
        if not hidden and not link.is_symlink():
            link.symlink_to(entry)
    write_if_new(crate / "Cargo.toml", (ROOT / "Cargo.toml").read_text() + DYLIB_TOML)
    write_if_new(crate / "Cargo.lock", (ROOT / "Cargo.lock").read_text())
    # Cargo reads the checkout's own file only for packages that lie in the checkout.
    profiles = (ROOT / ".cargo/config.toml").read_text()
    write_if_new(workspaces() / ".cargo/config.toml", profiles)


def write_if_new(path: Path, text: str) -> None:
    """Writes a file that does not hold this yet: cargo compiles again what depends on a newer file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def build() -> int:
    """Compiles the dylib into the checkout's target folder, beside what the tests compile there."""
    lay_out_crate()
    env = dict(os.environ, CARGO_TARGET_DIR=str(target_dir()), RUSTFLAGS=RUSTFLAGS)
    command = ["cargo", "build", "--lib", "--target", host()]
    return subprocess.run(command, cwd=workspaces() / "crate", env=env).returncode


def compiled() -> Path:
    """The dylib, compiled of the sources as they are."""
    dylib = target_dir() / host() / "debug/deps" / f"lib{DYLIB}{DYLIB_SUFFIX}"
    if not dylib.is_file():
        raise CannotStart(f"the crate is not compiled yet: run `make .stamps/build` in {ROOT}, then restart it")
    # What `make .stamps/build` depends on: the programs in src/bin are no part of the dylib.
    programs = ROOT / "src/bin"
    of_crate = [source for source in (ROOT / "src").rglob("*") if source.is_file() and programs not in source.parents]
    sources = [ROOT / name for name in ["Cargo.toml", "Cargo.lock", "build.rs", ".cargo/config.toml"]] + of_crate
    if any(source.stat().st_mtime_ns > dylib.stat().st_mtime_ns for source in sources):
        raise CannotStart(f"the crate has changed since it was compiled: run `make .stamps/build` in {ROOT}, then restart it")
    return dylib


def lay_out(workspace: Path) -> Path:
    """Writes an empty workspace and returns the folder for evcxr's package."""
    dylib, cells = compiled(), workspace / "cells"
    for folder, name, kind in [(cells, "ctx", "cdylib"), (workspace / "pin", "pin", "lib")]:
        (folder / "src").mkdir(parents=True, exist_ok=True)
        write_if_new(folder / "src/lib.rs", "")
        write_if_new(folder / "Cargo.toml", PACKAGE_TOML.format(name=name, kind=kind, root=json.dumps(str(ROOT))))
    write_if_new(workspace / "Cargo.toml", WORKSPACE_TOML)
    shutil.copyfile(ROOT / "Cargo.lock", workspace / "Cargo.lock")
    own = workspace / "lib" / dylib.name
    if not (own.is_file() and own.stat().st_mtime_ns == dylib.stat().st_mtime_ns):
        # Of another build, as is what was compiled against it. The kernel has a link of its own, because the next
        # build puts another file in this one's place.
        for folder in [own.parent, cells / "target"]:
            shutil.rmtree(folder, ignore_errors=True)
        own.parent.mkdir()
        link_or_copy(dylib, own)
    # The dylib's crate is looked for in lib/; what it depends on, and the macros of these, where cargo compiled them.
    compiled_for = [target_dir() / profile / "deps" for profile in [f"{host()}/debug", "debug"]]
    folders = [f"crate={own.parent}", *(f"dependency={folder}" for folder in compiled_for)]
    rustc = workspace / "rustc"
    config = CARGO_CONFIG.format(rustc=json.dumps(str(rustc)), host=host(), folders=json.dumps(folders))
    write_if_new(workspace / ".cargo/config.toml", config)
    lay_out_rustc(rustc, cells / "target/kept")
    lay_out_stub(workspace / "stub")
    return cells


def lay_out_stub(stub: Path) -> None:
    """Writes the package that cells depend on: for rustc the dylib's contents, for rust-analyzer the crate's sources."""
    (stub / "src").mkdir(parents=True, exist_ok=True)
    for entry in (ROOT / "src").iterdir():
        link = stub / "src" / entry.name
        if entry.name != "lib.rs" and not link.is_symlink():
            link.symlink_to(entry)
    # Each item of lib.rs is rust-analyzer's alone; what it names is read from the links above.
    items = re.sub(r"^(?=pub |mod |use )", "#[cfg(rust_analyzer)]\n", (ROOT / "src/lib.rs").read_text(), flags=re.MULTILINE)
    of_rustc = f"#[cfg(not(rust_analyzer))]\npub use {DYLIB}::*;\nextern crate {DYLIB};\n"
    write_if_new(stub / "src/lib.rs", f"#![allow(warnings)]\n{items}\n{of_rustc}")
    write_if_new(stub / "build.rs", "fn main() {}\n")
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    # Without the dependencies that a feature adds.
    features = {name: [part for part in parts if ":" not in part] for name, parts in manifest["features"].items()}
    lines = "\n".join(f"{name} = {json.dumps(parts)}" for name, parts in features.items())
    write_if_new(stub / "Cargo.toml", STUB_TOML.format(version=json.dumps(manifest["package"]["version"]), features=lines))


def lay_out_rustc(rustc: Path, kept: Path) -> None:
    """Writes the program that cargo runs in place of rustc. Of the compiled cells it has kept, the last used stay."""
    command = [sys.executable, "-IS", str(Path(__file__).resolve().parent / "kept_cells.py"), str(kept)]
    write_if_new(rustc, RUSTC.format(kept_cells=shlex.join(command)))
    rustc.chmod(0o755)
    used = sorted(kept.glob("*"), key=lambda cell: cell.stat().st_mtime_ns, reverse=True)
    for cell in used[KEPT_CELLS:]:
        shutil.rmtree(cell, ignore_errors=True)


def lay_out_library(library: Path) -> None:
    """Links what rust-analyzer reads of the standard library's sources, if they are installed.

    Left to itself it reads all of them before the first cell, twice. Half are the intrinsics of all processors (stdarch).
    """
    sources = Path(rustc_says()[1]).parents[1] / "src/rust/library"
    for name in ["core", "alloc", "std", "proc_macro"]:
        link = library / name
        if (sources / name).is_dir() and not (link.is_symlink() and link.readlink() == sources / name):
            library.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(sources / name)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def free_workspace() -> Path:
    """The first workspace that no kernel holds; holds it until this process, and what it becomes, ends."""
    number = 1
    while True:
        workspace = workspaces() / f"k{number}"
        workspace.mkdir(parents=True, exist_ok=True)
        lock = os.open(workspace / "lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.set_inheritable(lock, True)
            return workspace
        except OSError:
            os.close(lock)
            number += 1


def prepare() -> dict[str, str]:
    """Lays a workspace out and returns the environment for evcxr in it."""
    try:
        lay_out_crate()
        cells = lay_out(free_workspace())
        library = workspaces() / "library"
        lay_out_library(library)
    except OSError as error:
        raise CannotStart(f"it must write to {workspaces()}, and cannot: {error}") from None
    removed = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"]
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    # A copy of a notebook in another folder finds the data of this checkout all the same.
    environment.setdefault("FASHION_KNN_DATA", str(ROOT / "data"))
    # A cell finds libstd by a path that is relative to deps/, but evcxr moves the cell one folder up. That
    # goes well only where the path leads through "/": not where the workspace and Rust lie in the same home.
    libraries = [rustc_says()[1], str(cells.parent / "lib"), os.environ.get(LIBRARY_PATH)]
    if (library / "core").is_dir():
        environment.setdefault("RUST_SRC_PATH", str(library))
    return environment | {
        LIBRARY_PATH: ":".join(filter(None, libraries)),
        "EVCXR_TMPDIR": str(cells),
        "EVCXR_CONFIG_DIR": str(ROOT / "tools/evcxr"),
        # Threads of candle's own, for sums of tensors. A second one waits for work in a busy loop, on a core
        # that the crate's threads need: training is 3 % slower with it.
        "CANDLE_NUM_THREADS": "1",
        # Read by the rust-analyzer inside evcxr, which infers the types of a cell's variables; for its
        # own builds evcxr sets RUSTFLAGS anew. `lay_out_stub` says what the two are shown.
        "RUSTFLAGS": "--cfg rust_analyzer",
    }


def launch(evcxr: str, connection_file: str) -> int:
    """Runs evcxr. If there is no way to, a kernel that says why answers every cell: Jupyter itself would only say "died"."""
    try:
        status, said = run(evcxr, connection_file, prepare())
    except CannotStart as error:
        return answer_with(connection_file, f"The Rust kernel cannot start: {error}.")
    if status < 0:
        print(f"evcxr was ended by {signal.Signals(-status).name}", file=sys.stderr, flush=True)
        return 128 - status
    if status > 0:  # evcxr ends with an error only while it starts; an error of a cell is an answer
        last = "\n".join(said) or f"nothing, and ended with status {status}"
        return answer_with(connection_file, f"The Rust kernel cannot start: evcxr said\n{last}")
    return 0


def run(evcxr: str, connection_file: str, environment: dict[str, str]) -> tuple[int, list[str]]:
    """Runs evcxr to its end; its status and the last lines of its stderr, which go on to ours as well."""
    command = [evcxr, "--control_file", connection_file]
    try:
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", close_fds=False, preexec_fn=end_with_parent
        )
    except OSError as error:
        raise CannotStart(f"{evcxr}: {error.strerror}; `make .stamps/kernel` in {ROOT} installs it") from None
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Jupyter interrupts by message
    said: deque[str] = deque(maxlen=TOLD_LINES)

    def listen() -> None:
        in_backtrace = False  # of no use to a reader; its lines are indented
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            in_backtrace = line.startswith("Stack backtrace") or in_backtrace and line[0].isspace()
            if not in_backtrace and line.strip():
                said.append(line.rstrip())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    threading.Thread(target=end_without_parent, args=[os.getppid(), process], daemon=True).start()
    status = process.wait()
    listener.join(timeout=1)
    return status, list(said)


def end_without_parent(parent: int, process: subprocess.Popen) -> None:
    """Kills the process once our parent is gone: a Jupyter that was killed has told its kernels nothing."""
    while os.getppid() == parent:
        time.sleep(1)
    process.kill()


def end_with_parent() -> None:
    """Called in the child: it is killed when this process is, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def answer_with(connection_file: str, sentence: str) -> int:
    """Is a kernel, until Jupyter ends it, that answers every cell with this error."""
    from ipykernel.kernelapp import IPKernelApp
    from ipykernel.kernelbase import Kernel

    class Silent(Kernel):
        implementation, implementation_version, banner = NAME, "1", sentence
        language_info = {"name": "rust", "mimetype": "text/rust", "file_extension": ".rs"}

        async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
            error = {"ename": "KernelError", "evalue": sentence, "traceback": [sentence]}
            self.send_response(self.iopub_socket, "error", error)
            return {"status": "error", "execution_count": self.execution_count, **error}

    print(sentence, file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    IPKernelApp.launch_instance(argv=["-f", connection_file], kernel_class=Silent)
    return 1


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
            try:
                return build()
            except CannotStart as error:
                print(f"FAILED: {error}", file=sys.stderr)
                return 1
        case ["launch", evcxr, connection_file]:
            return launch(evcxr, connection_file)
        case ["clean"]:
            shutil.rmtree(workspaces(), ignore_errors=True)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
