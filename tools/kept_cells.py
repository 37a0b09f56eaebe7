"""rustc for the cells: what a cell was compiled to is kept, so that the same cell is not compiled again.

    kept_cells.py FOLDER RUSTC ARGUMENTS...

Runs in place of rustc where cargo compiles a cell (the program that `lay_out_rustc` in kernel.py writes calls it). A
notebook that runs again with another k has the same cells, or all but one. A cell with the same name of its function, the
same variables before it and the same dependencies is the same to rustc, and its library is copied from FOLDER:

    FOLDER/KEY/            KEY is a hash of all that rustc would read
    FOLDER/KEY/stderr      what rustc said: cargo reads from it what was written
    FOLDER/KEY/status      with which it ended
    FOLDER/KEY/libctx.so   and the other files that it wrote

Cells that read other files, or have errors, are compiled as ever.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = "src/lib.rs"
# Each line with it fetches or stores a variable of earlier cells. evcxr writes them in any order.
VARIABLE = "evcxr_variable_store."
# `?` where nothing can fail: by this error evcxr learns to compile cells as functions that can.
TRIED_AGAIN = "E0277"
SAID, STATUS = "stderr", "status"


def main(folder: Path, command: list[str]) -> int:
    arguments = command[1:]
    source = next(argument for argument in arguments if argument.endswith(SOURCE))
    kept = folder / key_of(command, Path(source))
    if kept.is_dir():
        try:
            return answer_from(kept, Path(arguments[arguments.index("--out-dir") + 1]))
        except (OSError, ValueError):  # something of it is missing
            shutil.rmtree(kept, ignore_errors=True)
    # With the open files of this process: cargo tells by them how many may compile at a time.
    told = subprocess.run(command, stderr=subprocess.PIPE, close_fds=False)
    sys.stderr.buffer.write(told.stderr)
    messages = [json.loads(line) for line in told.stderr.splitlines() if line.startswith(b"{")]
    written = [Path(message["artifact"]) for message in messages if "artifact" in message]
    if told.returncode == 0 and reads_alone(source, written) or told.returncode == 1 and is_tried_again(messages, Path(source)):
        keep(kept, written, told)
    return told.returncode


def key_of(command: list[str], source: Path) -> str:
    """A hash of the command, the cell's source, and the size and time of each library that the command names."""
    digest = hashlib.sha256(json.dumps(command).encode())
    for is_variable, lines in itertools.groupby(source.read_text().splitlines(), lambda line: VARIABLE in line):
        for line in sorted(lines) if is_variable else lines:
            digest.update(f"{line}\n".encode())
    for argument in command:
        library = argument.partition("=")[2]
        if library.endswith((".rlib", ".rmeta", ".so", ".dylib")):
            found = os.stat(library)
            digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def reads_alone(source: str, written: list[Path]) -> bool:
    """Whether a cell was made of its source and of no other file or environment variable (`include_str!`, `env!`)."""
    dep_info = next((path for path in written if path.suffix == ".d"), None)
    lines = [line for line in dep_info.read_text().splitlines() if line] if dep_info else ["# unknown"]
    return all(not line.startswith("#") and line.partition(":")[2].strip() in ("", source) for line in lines)


def is_tried_again(messages: list[dict], source: Path) -> bool:
    """Whether all errors are the one that evcxr mends. Others may be none of the cell's: no room on the disk, say."""
    # With an error rustc does not tell which files it read. One that is included may be mended since. (Of what
    # `include_str!` reads no error depends, and the word stands in a comment of evcxr.)
    if re.search(r"\binclude(_bytes)?\s*!", source.read_text()):
        return False
    errors = [message for message in messages if message.get("level") == "error" and message["spans"]]
    return bool(errors) and all((error["code"] or {}).get("code") == TRIED_AGAIN for error in errors)


def keep(kept: Path, written: list[Path], told: subprocess.CompletedProcess) -> None:
    """Keeps what rustc wrote and said. A failure to keep is no failure to compile."""
    # Under another name until it is whole: the kernel may be ended meanwhile.
    new = kept.with_suffix(f".{os.getpid()}")
    try:
        new.mkdir(parents=True)
        for path in written:
            shutil.copy2(path, new)
        (new / SAID).write_bytes(told.stderr)
        (new / STATUS).write_text(str(told.returncode))
        new.rename(kept)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)


def answer_from(kept: Path, out_dir: Path) -> int:
    """Does and says what rustc did and said."""
    status, said = int((kept / STATUS).read_text()), (kept / SAID).read_bytes()
    for path in kept.iterdir():
        if path.name not in (SAID, STATUS):
            # A file of its own, put in place at once: the kernel may still have the one before it loaded.
            new = out_dir / f"{path.name}.new"
            shutil.copyfile(path, new)
            shutil.copymode(path, new)
            new.replace(out_dir / path.name)
    os.utime(kept)  # the ones used last are kept longest
    sys.stderr.buffer.write(said)
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
