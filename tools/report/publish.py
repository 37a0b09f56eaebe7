"""Puts executed outputs into the notebooks in git, so that a code host shows the report without running it.

Beside them a notebook notes what they belong to: a hash of the cells and of the records that the cells read, and a hash of
the outputs. So it can be checked in a second, without executing anything, that nothing has changed since.

A cell with the tag `readme-NAME` has its figure in docs/NAME.svg as well, for the README.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import files
from .check import check_notebook, text_of

NOTE = "fashion_knn"  # the key in a notebook's metadata
MAX_BYTES = 3_000_000
RECORDS = "../data/results"  # as a notebook sees them
DOCS = "../docs"
README_TAG = "readme-"
RECORD_NAME = re.compile(r'"([\w-]+\.csv)"')
TIME_OF_DAY = re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}|\b[0-2]\d:[0-5]\d:[0-5]\d\b")
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|private|var|opt)/[\w.-]+")
EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[\w+/=]+")
# Where the data lie changes nothing in a report; every other parameter does.
WITHOUT_EFFECT = {"FASHION_MNIST_DIR"}


class NotPublishable(Exception):
    """What a notebook in git must not hold."""


def publish(source: Path, executed: Path) -> None:
    """Copies the outputs of `executed` into `source`, whose cells must be the same."""
    notebook = nbformat.read(source, as_version=4)
    ran = nbformat.read(executed, as_version=4)
    if [cell.source for cell in notebook.cells] != [cell.source for cell in ran.cells]:
        raise NotPublishable(f"{source}: has changed since it was executed: run `make report` first")
    refuse_parameters(executed.parent / ".parameters")
    for cell, result in zip(notebook.cells, ran.cells):
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = result.outputs, result.execution_count
    notebook.metadata = ran.metadata
    notebook.metadata[NOTE] = note(notebook, source.parent / RECORDS)
    text = nbformat.writes(notebook, indent=1) + "\n"
    if wrong := what_is_unfit(notebook, text):
        raise NotPublishable(f"{source}{wrong[0]}")
    if text != source.read_text(encoding="utf-8"):
        times = source.stat()
        files.write(source, text)
        # The same cells: for make, the report of them is as current as before.
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    for name, picture in readme_figures(notebook):
        files.write(source.parent / DOCS / name, picture)


def refuse_parameters(parameters: Path) -> None:
    """A report in git is one at the defaults. The Makefile notes in this file what it was executed with."""
    lines = parameters.read_text(encoding="utf-8").splitlines() if parameters.exists() else []
    set_to = [line for line in lines if not line.endswith("=") and line.partition("=")[0] not in WITHOUT_EFFECT]
    if set_to:
        raise NotPublishable(f"the report was made with {' '.join(set_to)}: run `make report` at the defaults first")


def check_published(path: Path) -> list[str]:
    """Everything for which a notebook in git is not what `make publish` would leave, without executing it."""
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    noted = notebook.metadata.get(NOTE)
    if not noted:
        return [f"{path}: has no outputs in git: `make publish` puts them in"]
    wrong = [failure.describe(str(path)) for failure in check_notebook(notebook)]
    wrong += [f"{path}{message}" for message in what_is_unfit(notebook, text)]
    now = note(notebook, path.parent / RECORDS)
    if noted.get("sources") != now["sources"]:
        wrong.append(f"{path}: its cells, or the records that they read, have changed since it was executed: `make publish`")
    if noted.get("outputs") != now["outputs"]:
        wrong.append(f"{path}: its outputs are not those that were published: `make publish`, or `git checkout` it")
    for name, picture in readme_figures(notebook):
        figure = path.parent / DOCS / name
        if not figure.exists() or figure.read_text(encoding="utf-8") != picture:
            wrong.append(f"{path}: {name} of the README is not its figure: `make publish`")
    return wrong


def readme_figures(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Names and contents of the files that the README shows."""
    return [
        (tag.removeprefix(README_TAG) + ".svg", text_of(output, "image/svg+xml"))
        for cell in notebook.cells
        for tag in cell.metadata.get("tags", [])
        if tag.startswith(README_TAG)
        for output in cell.outputs
        if "image/svg+xml" in output.get("data", {})
    ]


def note(notebook: NotebookNode, records: Path) -> dict[str, str]:
    """What the metadata say of a notebook with outputs."""
    cells = [[cell.cell_type, cell.source, sorted(cell.metadata.get("tags", []))] for cell in notebook.cells]
    read = {name: sha256((records / name).read_bytes()) for name in records_read(notebook) if (records / name).exists()}
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    return {"sources": sha256(canonical([cells, read])), "outputs": sha256(canonical(outputs))}


def records_read(notebook: NotebookNode) -> list[str]:
    """The files of data/results that the cells name."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return sorted(set(RECORD_NAME.findall(code)))


def canonical(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def what_is_unfit(notebook: NotebookNode, text: str) -> list[str]:
    """What must not be in git, each as the end of a sentence that begins with the notebook's name."""
    size = len(text.encode())
    wrong = [f": {size:,} bytes with its outputs, at most {MAX_BYTES:,} are meant"] if size > MAX_BYTES else []
    for number, cell in enumerate(notebook.cells, 1):
        outputs = [shown(output) for output in cell.get("outputs", [])]
        for place, texts, patterns in [("its source", [cell.source], PATTERNS[:1]), ("its output", outputs, PATTERNS)]:
            for what, pattern in patterns:
                if found := pattern.search("\n".join(texts)):
                    wrong.append(f", cell {number}: {place} holds {what}: {found[0]}")
    return wrong


PATTERNS = [("a path of this machine", MACHINE_PATH), ("a time of day", TIME_OF_DAY)]


def shown(output: NotebookNode) -> str:
    """An output's text, without embedded pictures: their letters are no words."""
    data = [canonical(value).decode() for mime, value in output.get("data", {}).items() if mime not in ("image/png", "image/jpeg")]
    return EMBEDDED.sub("", "\n".join([output.get("text", ""), *output.get("traceback", []), *data]))
