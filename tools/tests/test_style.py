"""Whether code reads as a lesson: each rule with a notebook that keeps it and one that does not."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from report.style import Figures, formatted, judge, put_in_order, tokens

WORDS = new_markdown_cell("paraula " * 1_000)
HIDDEN = {"tags": ["prose", "hide-input"], "jupyter": {"source_hidden": True}}


def wrong(folder, *cells):
    made = [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    nbformat.write(new_notebook(cells=[WORDS, *made]), folder / "N.ipynb")
    return judge([folder / "N.ipynb"])[1]


def test_a_lesson_has_nothing_wrong(tmp_path):
    good = [
        ':dep fashion-knn = { path = ".." }\nuse fashion_knn::prelude::*;',
        "let near = index.query(&image, 5)?;\nlet half = 0.5;\nlabels[row]",
        "for x in 0..10 {\n    println!(\"{x}.0 [4]\"); // a.0\n}",
        "let [a, b] = [1, 2];",
        new_code_cell('prose(format!("{k} veïns"))', metadata=HIDDEN),
    ]
    assert wrong(tmp_path, *good) == []


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["let x = " + "1" * 100 + ";"], "109 columns"),
        (["\n".join(f"let x{n} = {n};" for n in range(21))], "21 lines, at most 20"),
        (["row.0"], "`row.0`"),
        (["row.1.2"], "`row.1`"),
        (["found(x)?.3"], "`?.3`"),
        (["row.values[4]"], "`values[4`"),
        (["let x=1;"], "not as rustfmt has it:\n    - let x=1;\n    + let x = 1;"),
        (["let = ;"], "rustfmt: error"),
        ([new_code_cell('prose("k")', metadata={"tags": ["prose"]})], "without the tag `hide-input`"),
        ([new_code_cell("work()", metadata={"tags": ["hide-input"]})], "only prose hides its code"),
        (["\n".join(f"let {x} = read(\"{x}\")?;" for x in names) for names in ("abcdef", "ghijkl")], "6 lines as in"),
        (["\n".join(f"let x{n} = {n};" for n in range(7))] * 2, "the median cell has 7 lines"),
        ([f"let x = {n};" for n in range(9)] + ["\n".join(f"f({n});" for n in range(13))], "at most 13 lines, not 12"),
        ([f"let x{n} = {n};" for n in range(101)], "1000 words of prose for 101 lines of code"),
        ([f"let x{n} = {n};" for n in range(751)], "751 lines of code, at most 750"),
    ],
)
def test_what_is_no_lesson_is_told(tmp_path, monkeypatch, cells, message):
    if len(cells) > 20:  # rustfmt is not what these are about
        monkeypatch.setattr("report.style.formatted", lambda source: source)
    assert message in "\n".join(wrong(tmp_path, *cells))


def test_five_lines_may_stand_twice_and_comments_do_not_count(tmp_path):
    cells = ["\n".join(f"// note\nlet {x} = read(\"{x}\")?;" for x in names) for names in ("abcde", "ghijk")]
    assert not [message for message in wrong(tmp_path, *cells) if "as in" in message]


def test_strings_keep_their_space():
    source = 'print(\n    "a \\\n        b",\n);'
    assert formatted(formatted(source)) == formatted(source)
    assert '\\\n        b"' in formatted(source)


def test_tokens_of_rust():
    source = """r#"a "quoted" b"# 'x' '\\'' 'a b"\\"" 1.5e3 x.0.1 /* two\nlines */ 0..9"""
    kinds = [(token.kind, token.text) for token in tokens(source)]
    assert [kind for kind, _ in kinds[:5]] == ["string", "string", "string", "lifetime", "string"]
    assert ("number", "1.5e3") in kinds and kinds.count(("number", "0")) == 2 and ("number", "1") in kinds
    assert tokens(source)[-1].line == 2


def test_the_order_is_made_once(tmp_path):
    path = tmp_path / "N.ipynb"
    cells = [new_code_cell(":dep x\nlet  a=1;"), new_code_cell('prose( "k" )', metadata={"tags": ["prose"]})]
    nbformat.write(new_notebook(cells=cells), path)
    assert put_in_order(path) and not put_in_order(path)
    code, prose = nbformat.read(path, as_version=4).cells
    assert code.source == ":dep x\nlet a = 1;"
    assert prose.source == 'prose("k")' and prose.metadata == HIDDEN


def test_most_cells_are_95_of_100():
    assert Figures([1] * 19 + [30], 0, 0).line_of_most() == 1
    assert Figures([1] * 18 + [30, 30], 0, 0).line_of_most() == 30
