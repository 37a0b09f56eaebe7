"""The rules by which an executed notebook is judged, one by one."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from report.check import check_notebook

SVG = "<svg xmlns='http://www.w3.org/2000/svg'>{}</svg>"


def ran(*outputs, source="work()", count=1, tags=()):
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)})


def shows(mime, data):
    return new_output("execute_result", data={mime: data}, execution_count=1)


def stderr(text):
    return new_output("stream", name="stderr", text=text)


def messages(*cells):
    return [(failure.cell, failure.message) for failure in check_notebook(new_notebook(cells=list(cells)))]


def test_a_sound_notebook_has_no_failure():
    assert messages(
        new_markdown_cell("# Prose"),
        ran(new_output("stream", name="stdout", text="panicked? no: printed")),
        ran(shows("image/svg+xml", SVG.format("<g><path d='M0 0h9'/></g>")), tags=["figure"]),
        ran(shows("image/png", "iVBORw0K"), tags=["figure"]),
        ran(shows("text/html", "<table><tr><td>1</td></tr></table>"), tags=["table"]),
        ran(shows("text/markdown", "**1**"), tags=["prose"]),
        new_code_cell("   "),
    ) == []


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (ran(new_output("error", ename="E", evalue="no such name", traceback=["\x1b[31mno such name\x1b[0m"])), "no such name"),
        (ran(stderr("\nthread panicked at src/lib.rs:1:1:\nboom\nstack backtrace:\n 0: x")), "boom"),
        (ran(shows("text/plain", "5"), stderr("no such file\n")), "no such file"),
        (ran(count=None), "was not executed"),
        (ran(shows("text/html", "<svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>"), tags=["figure"]), "is tagged `figure` and shows none"),
        (ran(shows("application/vnd.vegalite.v5+json", {"mark": "bar"})), "shows an interactive figure without the still one"),
        (ran(tags=["figure"]), "is tagged `figure` and shows none"),
        (ran(shows("image/svg+xml", SVG.format("")), tags=["figure"]), "is tagged `figure` and shows none"),
        (ran(shows("image/svg+xml", "<svg><rect></svg>"), tags=["figure"]), "is tagged `figure` and shows none"),
        (ran(shows("text/html", "<table><tr><th>k</th></tr></table>"), tags=["table"]), "is tagged `table` and shows none"),
        (ran(shows("text/markdown", " \n"), tags=["prose"]), "is tagged `prose` and shows none"),
    ],
)
def test_what_is_wrong_is_found_and_placed(cell, message):
    found = messages(new_markdown_cell("# Prose"), ran(), cell, ran())
    assert [number for number, _ in found] == [3]
    assert message in found[0][1]


def test_a_panic_is_told_without_its_backtrace():
    [(_, message)] = messages(ran(stderr("thread panicked at cells/src/lib.rs:1:1:\nboom\nstack backtrace:\n 0: x")))
    assert "backtrace" not in message
