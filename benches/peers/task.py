"""What a library is asked to index, the index it made of it, and the settings to be measured."""

import json
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from peers import environment


@dataclass
class Built:
    """An index, and what its build has cost."""

    index: object
    seconds: float
    memory_bytes: int
    """As the library saves it; vectors that it keeps apart are added."""
    threads: int
    peak_bytes: int | None
    """The most memory that the process held meanwhile: Python and the base are in it."""


@dataclass
class Setting:
    """A built index with query parameters: what is measured for a row."""

    index: str
    """What the record calls it."""
    params: dict
    built: Built
    one: Callable
    """one(query, k): the ids of the k nearest, on one thread."""
    many: Callable | None = None
    """many(queries, k, threads): the same for each; None if the library has no such call."""
    together: bool = False
    """Whether `many` does some of the work for all queries at once (multiplies matrices), which
    single queries cannot have."""
    few: int | None = None
    """So many single queries say enough: the index is slow."""


@dataclass
class Library:
    """A library, or one of its indexes, with a process of its own."""

    settings: Callable
    """settings(task) yields each setting. It is measured before the next one is made, so that one
    index, with other query parameters set, can serve them all."""
    package: str
    """The package on PyPI, whose version is recorded."""
    originals: str = ""
    """The indexes of ours that are measured beside it, separated by commas."""
    blas: str = ""
    """A part of the path of the BLAS that it multiplies with; empty if it has none."""
    simd: Callable | None = None
    """The level of SIMD that it says it uses; None if it does not say."""


def folder_size(folder):
    files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


@dataclass
class Task:
    """The vectors to index, and how."""

    base: object
    """n x d values, float32."""
    threads: int = 1
    """Of the builds."""
    slow: bool = False
    """Whether also what takes minutes to build is wanted."""
    version: str = ""
    """Of the library: an index of another version is not taken from the cache."""
    cache: str | None = None
    """The folder in which built indexes are kept."""

    def timed(self, make):
        """Builds: the index, its seconds, and the peak of the memory."""
        environment.limit(self.threads)
        environment.reset_peak()
        seconds, index = environment.timed(make, self.threads)
        return index, seconds, environment.peak_bytes()

    def build(self, make, save, load=None, name="", apart=0):
        """What `make()` builds, or `load(path)` finds under `name` in the cache.

        `save(index, path)` writes a file, several, or a folder; with what lies `apart` (bytes),
        their size is the index's memory.
        """
        folder = self.kept_in(name) if name and load else None
        if folder and (folder / "built.json").is_file():
            figures = json.loads((folder / "built.json").read_text(encoding="utf-8"))
            return Built(load(str(folder / "index")), **figures)
        index, seconds, peak = self.timed(make)
        with tempfile.TemporaryDirectory(dir=folder and folder.parent) as beside:
            saved = pathlib.Path(beside, "saved")
            saved.mkdir()
            save(index, str(saved / "index"))
            figures = {"seconds": seconds, "memory_bytes": folder_size(saved) + apart}
            figures |= {"threads": self.threads, "peak_bytes": peak}
            if folder:
                keep(saved, folder, figures)
        return Built(index, **figures)

    def kept_in(self, name):
        """The folder of an index in the cache: another base or version has another one."""
        if not self.cache:
            return None
        values = zlib.crc32(memoryview(self.base).cast("B"))
        rows, dim = self.base.shape
        folder = pathlib.Path(self.cache) / f"{rows}x{dim}-{values:08x}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}-{self.version}".replace("/", "-").replace(",", "-")


def keep(saved, folder, figures):
    """Moves a saved index to its folder in the cache, on the same disk: whole, or not at all."""
    (saved / "built.json").write_text(json.dumps(figures), encoding="utf-8")
    # What an interrupted run may have left has no figures.
    shutil.rmtree(folder, ignore_errors=True)
    saved.rename(folder)
