"""SIFT1M, the set of a million descriptors that the handout's table was measured on: the corpus "sift-1m".

usage: texmex.py OUT_FOLDER [SIFT_FOLDER]

SIFT_FOLDER has sift_base.fvecs and sift_query.fvecs. Without it they are fetched from their official
address. Either way they are checked. Exit code 3: the address cannot be reached, or has something else.
"""
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from common import save, save_origin

ADDRESS = "ftp://ftp.irisa.fr/local/texmex/corpus/sift.tar.gz"
# Seconds without a byte, and for all of the 168 MB, after which the address counts as out of reach.
TIMEOUT = 10
LONGEST = 240
NOT_FETCHED = 3
DIMENSIONS = 128
FILES = {"base": ("sift_base.fvecs", 1_000_000), "queries": ("sift_query.fvecs", 10_000)}


def descriptors(path, count):
    """The rows of an .fvecs file as bytes. ValueError if they are not `count` SIFT descriptors."""
    # Each row is its dimension, a little-endian 32-bit number, and as many 32-bit floats.
    row = 4 + 4 * DIMENSIONS
    size = path.stat().st_size
    if size != count * row:
        raise ValueError(f"{path}: {size:,} bytes; expected {count:,} rows of {row}")
    numbers = np.memmap(path, "<i4", "r").reshape(count, 1 + DIMENSIONS)
    if not (numbers[:, 0] == DIMENSIONS).all():
        raise ValueError(f"{path}: a row is not of {DIMENSIONS} dimensions")
    values = numbers[:, 1:].view("<f4")
    rows = np.empty((count, DIMENSIONS), np.uint8)
    # A tenth at a time: as floats the whole takes half a gigabyte.
    for part in np.array_split(np.arange(count), 10):
        few = slice(part[0], part[-1] + 1)
        floats = np.array(values[few])
        with np.errstate(invalid="ignore"):
            rows[few] = floats
        if not (rows[few] == floats).all():
            raise ValueError(f"{path}: a value is no whole number from 0 to 255")
    return rows


class Hurried:
    """A stream that fails once it has been read from for longer than LONGEST."""

    def __init__(self, stream):
        self.stream, self.end = stream, time.monotonic() + LONGEST

    def read(self, size):
        if time.monotonic() > self.end:
            raise TimeoutError(f"not all there after {LONGEST} seconds")
        return self.stream.read(size)


def fetched(folder):
    """Fetches the archive and unpacks the two files into a folder. OSError or ValueError if they are not to be had."""
    wanted = {name for name, _ in FILES.values()}
    with urllib.request.urlopen(ADDRESS, timeout=TIMEOUT) as answer:
        try:
            with tarfile.open(fileobj=Hurried(answer), mode="r|gz") as archive:
                for member in archive:
                    name = Path(member.name).name
                    if name in wanted and member.isfile():
                        with open(folder / name, "wb") as file:
                            shutil.copyfileobj(archive.extractfile(member), file)
        except (tarfile.TarError, zlib.error) as error:
            raise ValueError(f"{ADDRESS}: {error}") from error


def converted(folder, out):
    """Checks the two files of a folder and writes them as the corpus."""
    parts = {part: descriptors(folder / name, count) for part, (name, count) in FILES.items()}
    save(out, "sift-1m", parts["base"], parts["queries"])
    save_origin(out, "sift-1m", {"name": "sift-1m"})


def main(out, given=None):
    if given is not None:
        try:
            converted(Path(given), out)
        except (OSError, ValueError) as error:
            sys.exit(f"SIFT_DIR: {error}")
        return
    Path(out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        try:
            fetched(Path(folder))
            converted(Path(folder), out)
        except (OSError, EOFError, ValueError) as error:
            print(f"SIFT1M is not to be had from {ADDRESS}: {error}", flush=True)
            sys.exit(NOT_FETCHED)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
