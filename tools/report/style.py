"""Whether the code of the notebooks reads as a lesson: its lines are counted, its layout is rustfmt's, no shape stands twice.

A cell tagged `prose` prints a sentence with figures of the run. It is hidden in the page, so it counts as prose, not as code.
"""

import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from . import files

MAX_COLUMNS = 100
MAX_MEDIAN, MAX_LINES_OF_MOST, MAX_LINES = 5, 12, 20  # lines of a visible cell; "most" are 95 of 100
MAX_TOTAL = 750  # lines of visible code in all notebooks, without comments and blank lines
MIN_WORDS_PER_LINE = 10
SHAPE = 6  # so many lines that stand twice, but for their names, belong into a function

TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<comment>//[^\n]*|/\*.*?\*/)
    | (?P<string>[bc]?r(?P<hashes>\#*)".*?"(?P=hashes)|[bc]?"(?:\\.|[^"\\])*"|b?'(?:\\(?:u\{\w+\}|x\w\w|.)|[^'\\])')
    | (?P<lifetime>'\w+)
    | (?P<number>\d[\w]*(?:\.\d[\w]*)?)
    | (?P<name>[^\W\d]\w*)
    | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
KEYWORDS = frozenset(
    "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref"
    " return self Self static struct super trait true type unsafe use where while".split()
)


class Token(NamedTuple):
    kind: str
    text: str
    line: int


@dataclass
class Cell:
    """A code cell: where it stands and what is in it, without evcxr's own commands (`:dep`)."""

    notebook: str
    number: int
    source: str
    tags: list[str]
    visible: bool

    def place(self) -> str:
        return f"{self.notebook}, cell {self.number}"

    def rust(self) -> str:
        """The Rust of the cell; a command of evcxr leaves an empty line, so that lines keep their numbers."""
        return "\n".join("" if line.startswith(":") else line for line in self.source.splitlines())


def tokens(source: str) -> list[Token]:
    """The tokens of Rust source, its comments too. A number after a point is a field: `x.0.1` has two."""
    found, at, line = [], 0, 1
    while at < len(source):
        match = TOKEN.match(source, at)
        kind, text = match.lastgroup, match[0]
        if kind == "hashes":
            kind = "string"
        if kind == "number" and found and found[-1].text == ".":
            text = re.match(r"\d\w*", text)[0]
        if kind != "space":
            found.append(Token(kind, text, line))
        line += text.count("\n")
        at += len(text)
    return found


def cells_of(path: Path) -> tuple[NotebookNode, list[Cell]]:
    notebook = nbformat.read(path, as_version=4)
    cells = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code" and cell.source.strip():
            tags = cell.metadata.get("tags", [])
            cells.append(Cell(str(path), number, cell.source, tags, "prose" not in tags))
    return notebook, cells


def code_lines(source: str) -> list[int]:
    """The numbers of the lines on which code stands, without comments and blank lines."""
    lines = set()
    for token in tokens(source):
        if token.kind != "comment":
            lines.update(range(token.line, token.line + token.text.count("\n") + 1))
    return sorted(lines)


# What is wrong with one cell.


def too_wide(cell: Cell) -> list[str]:
    lines = enumerate(cell.source.splitlines(), 1)
    return [f"{cell.place()}, line {n}: {len(line)} columns, at most {MAX_COLUMNS} are meant" for n, line in lines if len(line) > MAX_COLUMNS]


def too_long(cell: Cell) -> list[str]:
    count = len(cell.source.splitlines())
    return [f"{cell.place()}: {count} lines, at most {MAX_LINES} are meant"] if cell.visible and count > MAX_LINES else []


def indexed(cell: Cell) -> list[str]:
    """`row.0` and `row[4]`: results have names."""
    found = [token for token in tokens(cell.rust()) if token.kind != "comment"]
    wrong = []
    for before, sign, what in zip(found, found[1:], found[2:]):
        is_value = (before.kind == "name" and before.text not in KEYWORDS - {"self"}) or before.text in (")", "]", "?")
        if is_value and sign.text in (".", "[") and what.kind == "number":
            wrong.append(f"{cell.place()}, line {what.line}: `{before.text}{sign.text}{what.text}`: a result has a name, not a number")
    return wrong


def wrongly_marked(cell: Cell, metadata: NotebookNode) -> list[str]:
    """A prose cell is hidden everywhere, and nothing else is hidden anywhere."""
    hidden = ["hide-input" in cell.tags, bool(metadata.get("jupyter", {}).get("source_hidden"))]
    if cell.visible and any(hidden):
        return [f"{cell.place()}: hidden, but not tagged `prose`: only prose hides its code"]
    if not cell.visible and not all(hidden):
        return [f"{cell.place()}: tagged `prose`, but without the tag `hide-input` and `jupyter.source_hidden`"]
    return []


def begins_in_string(source: str) -> set[int]:
    """The numbers of the lines that begin within a string literal, where white space has a meaning."""
    inside = set()
    for token in tokens(source):
        if token.kind == "string":
            inside.update(range(token.line + 1, token.line + token.text.count("\n") + 1))
    return inside


def formatted(source: str) -> str:
    """What rustfmt makes of statements; raises `ValueError` with its words if they are no Rust."""
    whole = f"fn cell() {{\n{source}\n}}\n"
    command = ["rustfmt", "--edition", "2024", "--config", f"max_width={MAX_COLUMNS}", "--emit", "stdout"]
    result = subprocess.run(command, input=whole, capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        raise ValueError(result.stderr.strip())
    strings = begins_in_string(result.stdout)
    lines = result.stdout.splitlines()
    inner = [line if n in strings else line.removeprefix("    ") for n, line in enumerate(lines, 1)]
    return "\n".join(inner[1:-1]).strip()


def not_formatted(cell: Cell) -> list[str]:
    source = cell.rust().strip()
    if not source:
        return []
    try:
        wanted = formatted(source)
    except ValueError as error:
        return [f"{cell.place()}: rustfmt: {error}"]
    if wanted == source:
        return []
    pairs = zip(source.splitlines() + [""], wanted.splitlines() + [""])
    line = next(((ours, theirs) for ours, theirs in pairs if ours != theirs), ("", ""))
    return [f"{cell.place()}: not as rustfmt has it:\n    - {line[0]}\n    + {line[1]}"]


def put_in_order(path: Path) -> bool:
    """Lays the cells out as rustfmt has them and hides the code of prose; says whether anything has changed."""
    notebook, cells = cells_of(path)
    before = nbformat.writes(notebook)
    for cell in cells:
        lines = cell.source.splitlines()
        commands = [line for line in lines if line.startswith(":")]
        if rust := cell.rust().strip():
            notebook.cells[cell.number - 1].source = "\n".join([*commands, formatted(rust)])
        if not cell.visible:
            hide(notebook.cells[cell.number - 1])
    text = nbformat.writes(notebook)
    if text != before:
        files.write(path, text + "\n")
    return text != before


def hide(cell: NotebookNode) -> None:
    """Hides a cell's code, in the words of our page, of nbconvert and of JupyterLab."""
    if "hide-input" not in cell.metadata.tags:
        cell.metadata.tags.append("hide-input")
    cell.metadata.setdefault("jupyter", {})["source_hidden"] = True


# What stands twice.


def shape(found: list[Token]) -> str:
    """The tokens, names numbered by their first appearance and literals by their kind."""
    names: dict[str, str] = {}
    parts = []
    for token in found:
        if token.kind == "name" and token.text not in KEYWORDS:
            parts.append(names.setdefault(token.text, f"n{len(names)}"))
        else:
            parts.append(token.kind if token.kind in ("string", "number", "lifetime") else token.text)
    return " ".join(parts)


@dataclass(frozen=True)
class Window:
    """A run of `SHAPE` lines of code."""

    cell: Cell
    start: int  # counts the lines of code before it
    line: int
    shape: str

    def place(self) -> str:
        return f"{self.cell.place()}, line {self.line}"

    def apart(self, other: "Window") -> bool:
        """Whether they have no line in common."""
        return self.cell is not other.cell or abs(self.start - other.start) >= SHAPE


def windows(cell: Cell) -> list[Window]:
    """Every run of `SHAPE` lines of code in a cell."""
    by_line: dict[int, list[Token]] = {}
    for token in tokens(cell.rust()):
        if token.kind != "comment":
            by_line.setdefault(token.line, []).append(token)
    lines = sorted(by_line)
    runs = [lines[start : start + SHAPE] for start in range(len(lines) - SHAPE + 1)]
    shapes = [shape([token for line in run for token in by_line[line]]) for run in runs]
    return [Window(cell, start, run[0], its_shape) for start, (run, its_shape) in enumerate(zip(runs, shapes))]


def twice(cells: list[Cell]) -> list[str]:
    """Shapes that stand twice in visible cells; those of the parameters are lists, not code."""
    first: dict[str, Window] = {}
    told, wrong = set(), []
    for cell in cells:
        if not cell.visible or "parameters" in cell.tags:
            continue
        for window in windows(cell):
            earlier = first.setdefault(window.shape, window)
            pair = (earlier.cell.place(), cell.place())
            if window.apart(earlier) and pair not in told:
                told.add(pair)
                wrong.append(f"{window.place()}: {SHAPE} lines as in {earlier.place()}, but for their names")
    return wrong


# Figures.


def words_of_prose(notebook: NotebookNode, cells: list[Cell]) -> int:
    """Words of the markdown, and of the sentences in `prose` cells."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for cell in cells:
        if not cell.visible:
            texts += [token.text for token in tokens(cell.rust()) if token.kind == "string"]
    return sum(len(re.findall(r"[^\W\d_]+(?:['’·-][^\W\d_]+)*", text)) for text in texts)


@dataclass
class Figures:
    """The size of the code of one notebook or of several."""

    lines_of_cells: list[int]
    code: int
    words: int

    def line_of_most(self) -> int:
        """95 of 100 cells have at most so many lines."""
        ordered = sorted(self.lines_of_cells)
        return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]

    def describe(self) -> str:
        return (
            f"{len(self.lines_of_cells)} visible cells: median {statistics.median(self.lines_of_cells):g} lines,"
            f" 95 % at most {self.line_of_most()}, longest {max(self.lines_of_cells)}; {self.code} lines of code;"
            f" {self.words / max(self.code, 1):.1f} words of prose a line"
        )


def figures_of(notebook: NotebookNode, cells: list[Cell]) -> Figures:
    visible = [cell for cell in cells if cell.visible]
    return Figures(
        [len(cell.source.splitlines()) for cell in visible],
        sum(len(code_lines(cell.source)) for cell in visible),
        words_of_prose(notebook, cells),
    )


def wrong_figures(figures: Figures, where: str) -> list[str]:
    median = statistics.median(figures.lines_of_cells)
    bars = [
        (median <= MAX_MEDIAN, f"the median cell has {median:g} lines, at most {MAX_MEDIAN} are meant"),
        (figures.line_of_most() <= MAX_LINES_OF_MOST, f"95 % of the cells have at most {figures.line_of_most()} lines, not {MAX_LINES_OF_MOST}"),
        (figures.words >= MIN_WORDS_PER_LINE * figures.code, f"{figures.words} words of prose for {figures.code} lines of code, at least {MIN_WORDS_PER_LINE} a line are meant"),
    ]  # fmt: skip
    return [f"{where}: {message}" for holds, message in bars if not holds]


def judge(paths: list[Path]) -> tuple[list[str], list[str]]:
    """The figures of the notebooks, a line each, and everything that is wrong."""
    told, wrong, everything = [], [], []
    sums = Figures([], 0, 0)
    for path in paths:
        notebook, cells = cells_of(path)
        for cell in cells:
            wrong += too_wide(cell) + too_long(cell) + indexed(cell) + not_formatted(cell)
            wrong += wrongly_marked(cell, notebook.cells[cell.number - 1].metadata)
        everything += cells
        figures = figures_of(notebook, cells)
        if figures.lines_of_cells:
            told.append(f"{path}: {figures.describe()}")
        sums = Figures(sums.lines_of_cells + figures.lines_of_cells, sums.code + figures.code, sums.words + figures.words)
    wrong += twice(everything)
    if sums.lines_of_cells:
        told.append(f"together: {sums.describe()}")
        wrong += wrong_figures(sums, "together")
    if sums.code > MAX_TOTAL:
        wrong.append(f"together: {sums.code} lines of code, at most {MAX_TOTAL} are meant")
    return told, wrong
