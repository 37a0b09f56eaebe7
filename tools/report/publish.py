"""Puts executed outputs into the notebooks in git, so that a code host shows the report without running it."""

import os
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import files

MAX_BYTES = 3_000_000
TIME_OF_DAY = re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}|\b[0-2]\d:[0-5]\d:[0-5]\d\b")
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|private|var|opt)/[\w.-]+")


class NotPublishable(Exception):
    """What a notebook in git must not hold."""


def publish(source: Path, executed: Path) -> None:
    """Copies the outputs of `executed` into `source`, whose cells must be the same."""
    notebook = nbformat.read(source, as_version=4)
    ran = nbformat.read(executed, as_version=4)
    if [cell.source for cell in notebook.cells] != [cell.source for cell in ran.cells]:
        raise NotPublishable(f"{source}: has changed since it was executed: run `make report` first")
    for cell, result in zip(notebook.cells, ran.cells):
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = result.outputs, result.execution_count
    notebook.metadata = ran.metadata
    text = nbformat.writes(notebook, indent=1) + "\n"
    refuse_unfit(source, notebook, text)
    if text != source.read_text(encoding="utf-8"):
        times = source.stat()
        files.write(source, text)
        # The same cells: for make, the report of them is as current as before.
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def refuse_unfit(source: Path, notebook: NotebookNode, text: str) -> None:
    if len(text.encode()) > MAX_BYTES:
        raise NotPublishable(f"{source}: {len(text.encode()):,} bytes with its outputs, at most {MAX_BYTES:,} are meant")
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            shown = output.get("text", "") + "\n".join(str(v) for k, v in output.get("data", {}).items() if "image/" not in k)
            for what, pattern in [("a path of this machine", MACHINE_PATH), ("a time of day", TIME_OF_DAY)]:
                if found := pattern.search(shown):
                    raise NotPublishable(f"{source}, cell {number}: its output holds {what}: {found[0]}")
