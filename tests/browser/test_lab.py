"""JupyterLab, as its user meets it: open Apartat A, run it, change k, run it again."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from conftest import ROOT, pictures_shown

from report.check import check_notebook, text_of

NOTEBOOK = "Apartat_A.ipynb"
TOKEN = "only-for-this-test"
K = 38  # no other number of the report's tables
# How long any one step may take, in Playwright's milliseconds. A step ends as soon as its condition
# holds; the limit is there for a JupyterLab that hangs, not for a machine that is slow.
LIMIT = 15 * 60_000
IDLE = "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"


def ask(address, method="GET"):
    request = urllib.request.Request(address, method=method, headers={"Authorization": f"token {TOKEN}"})
    return urllib.request.urlopen(request, timeout=LIMIT / 1000).read()


def answers(address):
    try:
        return bool(ask(f"{address}/api"))
    except OSError:
        return False


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab on a copy of the notebook, which finds the record where the real one does.

    A copy, because saving must not touch the notebook in git.
    """
    copy = nbformat.read(ROOT / "notebooks" / NOTEBOOK, as_version=4)
    [crate] = [cell for cell in copy.cells if 'path = ".."' in cell.source]
    crate.source = crate.source.replace('path = ".."', f'path = "{ROOT}"')
    # Without the outputs in git, whose numbers of executions are not those of the kernel that starts.
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    (tmp_path / "lab" / "notebooks").mkdir(parents=True)
    nbformat.write(copy, tmp_path / "lab" / "notebooks" / NOTEBOOK)
    (tmp_path / "lab" / "data").symlink_to(ROOT / "data")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    jupyter = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ["CONFIG", "RUNTIME"]}
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
             f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={tmp_path}/lab/notebooks", "--LabApp.expose_app_in_browser=True",
             "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
            env=os.environ | jupyter | {"N_QUERIES": "500", "K": "", "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        while not answers(address):
            assert server.poll() is None, (tmp_path / "lab.log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        for kernel in json.loads(ask(f"{address}/api/kernels")) if answers(address) else []:
            ask(f"{address}/api/kernels/{kernel['id']}", method="DELETE")
        server.terminate()
        server.wait()


def notebook(page):
    """The notebook as JupyterLab holds it now."""
    model = "window.jupyterapp.shell.currentWidget.content.model"
    return nbformat.from_dict(page.evaluate(f"{model}.toJSON()"))


def run_all(page):
    """Run > Run All Cells, until the last cell has run and the kernel is idle.

    evcxr counts its executions: each run of a cell gives a new number.
    """
    before = last_count(page)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        """before => {
            const panel = window.jupyterapp.shell.currentWidget;
            const cells = [...panel.content.model.cells].filter(cell => cell.type === 'code');
            return cells.every(cell => cell.executionCount > before)
                && panel.sessionContext.session.kernel.status === 'idle';
        }""",
        arg=before,
        polling=500,
    )
    page.wait_for_timeout(1_000)  # stderr comes from a thread of its own, perhaps after the cell's end
    ran = notebook(page)
    assert [failure.describe(NOTEBOOK) for failure in check_notebook(ran)] == []
    return ran


def last_count(page):
    return max([cell.get("execution_count") or 0 for cell in notebook(page).cells], default=0)


def numbers_in_tables(cells):
    tables = (output for cell in cells if "table" in cell.metadata.get("tags", []) for output in cell.outputs)
    return re.findall(r"<td[^>]*>([^<]*)</td>", "".join(text_of(output, "text/html") for output in tables))


def test_k_is_changed_and_the_tables_follow(browser, lab):
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.set_default_timeout(LIMIT)
    page.goto(f"{lab}/lab/tree/{NOTEBOOK}?token={TOKEN}")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.locator(".jp-Toolbar-kernelName", has_text="Rust (fashion-knn)").first.wait_for()
    page.wait_for_function(IDLE)

    prose = sum("prose" in cell.metadata.get("tags", []) for cell in notebook(page).cells)
    hidden = "window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.inputHidden).length"
    assert page.evaluate(hidden) == prose > 0, "the code of sentences is collapsed, and no other"

    first = run_all(page)
    assert str(K) not in numbers_in_tables(first.cells)

    [parameters] = [cell for cell in first.cells if "parameters" in cell.metadata.get("tags", [])]
    edited, changes = re.subn(r'parameter\("K", \d+\)', f'parameter("K", {K})', parameters.source)
    assert changes == 1
    cell = page.locator(".jp-CodeCell", has_text='parameter("K"').first
    cell.scroll_into_view_if_needed()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(edited)

    second = run_all(page)
    assert [c.source for c in second.cells if "parameters" in c.metadata.get("tags", [])] == [edited]
    assert str(K) in numbers_in_tables(second.cells)

    index = max(i for i, c in enumerate(second.cells) if str(K) in numbers_in_tables([c]))
    page.evaluate("index => window.jupyterapp.shell.currentWidget.content.scrollToItem(index, 'center')", index)
    page.locator(".jp-OutputArea table td", has_text=re.compile(f"^{K}$")).first.wait_for(state="visible")

    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    exported_shows_every_figure(browser, lab, second)


def exported_shows_every_figure(browser, lab, ran):
    """File > Save and Export Notebook As > HTML opens this address; its page is looked at without network or scripts."""
    exported = ask(f"{lab}/nbconvert/html/{NOTEBOOK}?download=true").decode()
    figures = sum("figure" in cell.metadata.get("tags", []) for cell in ran.cells)
    page = browser.new_context(viewport={"width": 1440, "height": 1000}, java_script_enabled=False, offline=True).new_page()
    page.set_content(exported, wait_until="domcontentloaded")
    assert len(pictures_shown(page)) >= figures > 0
