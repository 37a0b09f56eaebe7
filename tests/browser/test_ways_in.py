"""The other ways to an executed notebook: a code host, plain nbconvert. Every figure is there, without network or scripts."""

import subprocess
import sys
from urllib.parse import quote

import nbformat
import pytest
from conftest import HTML, PAGES, pictures_shown

from report.check import text_of

NOTEBOOKS = [name for name in PAGES if name != "index"]


def figures_of(name):
    """The outputs of the cells tagged `figure`."""
    notebook = nbformat.read(HTML / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if "figure" in cell.metadata.get("tags", [])]
    return [output for cell in cells for output in cell.outputs if "data" in output]


def without_network_or_scripts(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 900}, java_script_enabled=False, offline=True)
    return context.new_page()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_code_host_shows_every_figure(browser, name):
    """It shows an SVG as a picture of its own: nothing around it helps, and no script in it runs."""
    page = without_network_or_scripts(browser)
    for output in figures_of(name):
        svg, png = text_of(output, "image/svg+xml"), text_of(output, "image/png")
        assert svg or png, "only an interactive form"
        kind, data = ("image/svg+xml", svg) if svg else ("image/png;base64", png)
        source = f"data:{kind},{quote(data)}"
        page.set_content(f'<img src="{source}">')
        assert pictures_shown(page), data[:200]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_plain_nbconvert_shows_every_figure(browser, name, tmp_path):
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", tmp_path, HTML / f"{name}.ipynb"]
    subprocess.run(command, check=True, capture_output=True)
    page = without_network_or_scripts(browser)
    page.goto((tmp_path / f"{name}.html").as_uri())
    assert len(pictures_shown(page)) >= len(figures_of(name)) > 0
