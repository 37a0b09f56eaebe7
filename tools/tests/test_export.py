"""Pages that need nothing but themselves, and notebooks fit for git."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from report.export import export, index
from report.publish import NotPublishable, publish

SVG = "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>"


SPEC = {"mark": "point", "data": {"values": [{"nom": "</script><b>"}]}}
VEGA_LITE = "application/vnd.vegalite.v5+json"


def notebook(text="5", source="k", **forms):
    figure = new_output("execute_result", data={"image/svg+xml": SVG, **forms}, execution_count=2)
    stream = new_output("stream", name="stdout", text=text)
    return new_notebook(
        cells=[
            new_markdown_cell("# Un *títol*\n\nEl primer paràgraf, amb $\\sqrt{x}$.\n\n- **A1.** Què és\n  `k`?\n- **A2.** I d?\n\n$$\\sum_i x_i$$"),
            new_code_cell(source, outputs=[stream], execution_count=1),
            new_code_cell("chart()", outputs=[figure], execution_count=2, metadata={"execution": {"iopub.status.idle": "x"}, "tags": ["figure", "answer-A1"]}),
        ]
    )


def test_a_page_asks_nothing_of_the_network():
    page = export(notebook(), "Prova")
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//|@import|url\(["']?http|<script""", page)
    assert '<html lang="ca">' in page and "<title>Un títol</title>" in page
    assert "<rect" in page and "<?xml" not in page
    assert page.count("<math") == 2 and "$" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_the_index_reads_as_one_report(tmp_path):
    nbformat.write(notebook(), tmp_path / "Apartat_A.ipynb")
    page = index([tmp_path / "Apartat_A.ipynb"])
    assert '<a href="Apartat_A.html">Un títol</a>' in page and "El primer paràgraf" in page
    questions = re.findall(r'<section class="question" id="(\w+)">(.*?)</section>', page, re.DOTALL)
    assert [label for label, _ in questions] == ["A1", "A2"]
    assert "<code>k</code>" in questions[0][1] and "<rect width='9'" in questions[0][1]
    assert 'href="Apartat_A.html#answer-A1"' in questions[0][1] and "<rect" not in questions[1][1]
    assert '<a id="answer-A1"></a>' in export(nbformat.read(tmp_path / "Apartat_A.ipynb", 4), "Prova")
    assert "<script" not in page


def test_an_interactive_chart_brings_its_library_and_its_still_form():
    page = export(notebook(**{VEGA_LITE: SPEC}), "Prova")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL | re.IGNORECASE)
    assert [kind.strip() for kind, _ in scripts] == ['type="application/json"', ""]
    assert json.loads(scripts[0][1]) == SPEC, "nothing in the data ends the script"
    assert "vegaEmbed" in scripts[1][1] and "<rect" in page
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def written(folder, source, executed):
    nbformat.write(source, folder / "source.ipynb")
    nbformat.write(executed, folder / "executed.ipynb")
    return folder / "source.ipynb", folder / "executed.ipynb"


def test_publishing_twice_changes_nothing(tmp_path):
    bare = notebook()
    for cell in bare.cells[1:]:
        cell.outputs, cell.execution_count = [], None
    source, executed = written(tmp_path, bare, notebook())
    before = source.stat().st_mtime_ns
    publish(source, executed)
    first = source.read_text()
    assert "rect width" in first and "iopub" not in first
    assert source.stat().st_mtime_ns == before, "make would take it for changed"
    publish(source, executed)
    assert source.read_text() == first


@pytest.mark.parametrize(
    ("executed", "message"),
    [
        (notebook(f"saved to {Path('/', 'home', 'someone', 'x.csv')}"), "cell 2: its output holds a path of this machine"),
        (notebook("done at 23:59:58"), "cell 2: its output holds a time of day"),
        (notebook("7" * 4_000_000), "bytes with its outputs"),
        (notebook(source="k + 1"), "has changed since it was executed"),
    ],
)
def test_what_does_not_belong_in_git_is_refused(tmp_path, executed, message):
    source, executed = written(tmp_path, notebook(), executed)
    before = source.read_text()
    with pytest.raises(NotPublishable, match=message):
        publish(source, executed)
    assert source.read_text() == before
