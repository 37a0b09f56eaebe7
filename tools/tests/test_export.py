"""Pages that need nothing but themselves."""

import json
import re

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from report.export import export, index

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
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//|@import|url\(["']?http""", page)
    assert "vegaEmbed" not in page, "nothing here needs so large a script"
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
    assert "vegaEmbed" not in page


def test_an_interactive_chart_brings_its_library_and_its_still_form():
    page = export(notebook(**{VEGA_LITE: SPEC}), "Prova")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL | re.IGNORECASE)
    assert [kind.strip() for kind, _ in scripts] == ['type="application/json"', "", ""]
    assert json.loads(scripts[0][1]) == SPEC, "nothing in the data ends the script"
    assert "vegaEmbed" in scripts[2][1] and "<rect" in page
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_prose_hides_its_code_and_nothing_else_does():
    made = notebook()
    made.cells.append(new_code_cell("prose(k)", metadata={"tags": ["prose", "hide-input"], "jupyter": {"source_hidden": True}}))
    page = export(made, "Prova")
    [hidden] = re.findall(r'<details class="code">(.*?)</details>', page, re.DOTALL)
    assert "prose" in hidden and "open" not in hidden
    assert page.count('class="code source"') == 2


def test_what_may_be_wider_than_a_screen_is_reached_by_the_keyboard():
    made = notebook()
    made.cells.append(new_markdown_cell("| a | b |\n|---|---|\n| 1 | 2 |\n\n$$x$$"))
    made.cells.append(new_code_cell("t", outputs=[new_output("execute_result", data={"text/html": "<table></table>"}, execution_count=1)]))
    page = export(made, "Prova")
    wrapped = r'<div class="wide" tabindex="0">\s*<table>'
    assert len(re.findall(wrapped, page)) == page.count("<table") == 2
    assert page.count('<div class="formula" tabindex="0"><math') == page.count('display="block"')
    assert len(re.findall(r'<figure class="wide[^"]*" tabindex="0">', page)) == page.count("<figure") == 1


def test_elements_without_content_are_written_as_html():
    assert not re.search(r"<(?:meta|link|input)[^>]*/>", export(notebook(), "Prova"))


def test_a_notebook_that_vs_code_has_saved_keeps_its_language_and_its_ids(tmp_path):
    made = notebook()
    for cell in made.cells[1:]:
        cell.metadata["vscode"] = {"languageId": "rust"}
    made.metadata = {"kernelspec": {"name": "fashion-knn", "display_name": "Rust (fashion-knn)", "language": "rust"}}
    made.cells[1].source = "let k: usize = 5;"
    (tmp_path / "N.ipynb").write_text(json.dumps(made, indent=2))
    read = nbformat.read(tmp_path / "N.ipynb", as_version=4)
    assert [cell.id for cell in read.cells] == [cell.id for cell in made.cells]
    assert '<span class="kd">let</span>' in export(read, "Prova")
