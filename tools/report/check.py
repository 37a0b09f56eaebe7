"""What an executed notebook must be before it may become a report.

evcxr answers "ok" for a cell that panicked or whose `?` failed, and tells of it on stderr only, the error of a `?` without
any mark of its own. So nothing may be on stderr at all. What a cell promises, its tags say: `figure`, `table`, `prose`.
"""

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from nbformat import NotebookNode

DRAWN = {"path", "polyline", "polygon", "rect", "circle", "ellipse", "line", "text", "image"}
# The form of a chart that answers its reader, beside the still one. JupyterLab draws the same.
VEGA_LITE = "application/vnd.vegalite.v5+json"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Failure:
    """A cell that did not do what it should; `cell` counts the cells of the notebook from 1."""

    cell: int
    first_line: str
    message: str

    def describe(self, notebook: str) -> str:
        indented = self.message.strip().replace("\n", "\n    ")
        return f"{notebook}, cell {self.cell}: {self.first_line}\n    {indented}"


def check_notebook(notebook: NotebookNode) -> list[Failure]:
    """Every failure of an executed notebook, in its order."""
    found = [check_cell(cell, number) for number, cell in enumerate(notebook.cells, 1)]
    return [failure for failure in found if failure]


def check_cell(cell: NotebookNode, number: int) -> Failure | None:
    """The first thing that is wrong with a cell; `number` counts from 1."""
    if cell.cell_type != "code" or not cell.source.strip():
        return None
    message = what_is_wrong(cell)
    return message and Failure(number, cell.source.strip().splitlines()[0], message)


def what_is_wrong(cell: NotebookNode) -> str | None:
    for output in cell.outputs:
        if output.output_type == "error":
            return error_text(output)
    stderr = "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stderr")
    if "panicked at" in stderr:
        return stderr[: stderr.find("stack backtrace:")] if "stack backtrace:" in stderr else stderr
    if stderr.strip():
        return f"{stderr.strip()}\n(on stderr: an error that `?` returned, or a message that belongs on stdout)"
    if cell.execution_count is None:
        return "was not executed"
    tags = cell.metadata.get("tags", [])
    for tag, is_one in PROMISES.items():
        if tag in tags and not any(is_one(output) for output in cell.outputs):
            return f"is tagged `{tag}` and shows none"
    if any(VEGA_LITE in output.get("data", {}) and not is_figure(output) for output in cell.outputs):
        return "shows an interactive figure without the still one, which is all that a code host shows"
    return None


def error_text(output: NotebookNode) -> str:
    traceback = ANSI.sub("", "\n".join(output.get("traceback", [])))
    return traceback if output.evalue in traceback else f"{output.evalue}\n{traceback}".strip()


def text_of(output: NotebookNode, mime: str) -> str:
    data = output.get("data", {}).get(mime, "")
    return "".join(data) if isinstance(data, list) else data


def is_figure(output: NotebookNode) -> bool:
    """A picture on which something is drawn, of a kind that code hosts show too: they drop what HTML draws."""
    return bool(text_of(output, "image/png") or text_of(output, "image/jpeg")) or is_drawn(text_of(output, "image/svg+xml"))


def is_drawn(svg: str) -> bool:
    try:
        elements = ElementTree.fromstring(svg).iter() if svg.strip() else []
    except ElementTree.ParseError:
        return False
    return any(element.tag.rsplit("}", 1)[-1] in DRAWN for element in elements)


def is_table(output: NotebookNode) -> bool:
    """A table with at least one cell of data."""
    return bool(re.search(r"<table\b.*?<td\b", text_of(output, "text/html"), re.DOTALL))


def is_prose(output: NotebookNode) -> bool:
    return bool(text_of(output, "text/markdown").strip())


PROMISES = {"figure": is_figure, "table": is_table, "prose": is_prose}
