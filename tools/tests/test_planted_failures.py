"""Failures planted in real notebooks, run by the real kernel through make: none may become a report."""

import os
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD = "the last good one"
DEP = f':dep fashion-knn = {{ path = "{ROOT}" }}'
PRELUDE = "use fashion_knn::prelude::*;"
EMIT_TABLE = 'println!("EVCXR_BEGIN_CONTENT text/html\\n<table><tr><td>1</td></tr></table>\\nEVCXR_END_CONTENT");'
EMIT_FIGURE = (
    'println!("EVCXR_BEGIN_CONTENT image/svg+xml\\n<svg xmlns=\'http://www.w3.org/2000/svg\'>'
    "<rect width='9' height='9'/></svg>\\nEVCXR_END_CONTENT\");"
)
EMIT_EMPTY_TABLE = EMIT_TABLE.replace("<tr><td>1</td></tr>", "<tr><th>k</th></tr>")
CHART_OF_NAN = 'LineChart::new("t", "x", "y").with(Series::new("a", [(1.0, f64::NAN)])).figure()?'
KILL_EVCXR = (
    "use std::os::unix::process::parent_id;"
    ' std::process::Command::new("kill").args(["-9".into(), parent_id().to_string()]).status();'
)
# What the system does to a process that takes too much memory.
KILL_CELL = 'std::process::Command::new("kill").args(["-9".into(), std::process::id().to_string()]).status();'


def make_report(folder: Path, *cells: str | tuple[str, str], **environment: str) -> subprocess.CompletedProcess:
    """`make report` for one notebook of these cells, each a source or a source and its tag."""
    code = [new_code_cell(c) if isinstance(c, str) else new_code_cell(c[0], metadata={"tags": [c[1]]}) for c in cells]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Plantat"), *code]), folder / "Plantat.ipynb")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "report", f"SOURCE={folder}", f"HTML={folder}/html"],
        cwd=ROOT,
        env=variables | environment,
        capture_output=True,
        text=True,
    )


def leave_good_report(folder: Path) -> None:
    (folder / "html").mkdir()
    for name in ["Plantat.ipynb", "Plantat.html", "index.html"]:
        (folder / "html" / name).write_text(GOOD)
        os.utime(folder / "html" / name, (0, 0))


def assert_refused(folder: Path, result: subprocess.CompletedProcess, cell: int, first_line: str, message: str) -> None:
    told = result.stdout + result.stderr
    assert result.returncode != 0, told
    assert f"{folder}/Plantat.ipynb, cell {cell}: {first_line}" in told, told
    assert message in told, told
    for name in ["Plantat.ipynb", "Plantat.html", "index.html"]:
        assert (folder / "html" / name).read_text() == GOOD, name
    left = sorted(path.name for path in (folder / "html").iterdir())
    assert left == [".parameters", "Plantat.html", "Plantat.ipynb", "index.html"]


def test_a_sound_notebook_becomes_a_report(tmp_path):
    leave_good_report(tmp_path)
    result = make_report(tmp_path, "let k = 5;", (EMIT_TABLE, "table"), (EMIT_FIGURE, "figure"), "let x: i32 = \"7\".parse()?;")
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "html/Plantat.html").read_text()
    assert "<rect" in page and "<td>1</td>" in page
    assert "Plantat.html" in (tmp_path / "html/index.html").read_text()


@pytest.mark.parametrize(
    ("cells", "cell", "message"),
    [
        pytest.param(['panic!("planted panic");'], 2, "planted panic", id="panic"),
        pytest.param(["let k = 5;", 'let n: i32 = "seven".parse::<i32>()?;'], 3, "invalid digit found in string", id="failed ?"),
        pytest.param([EMIT_TABLE + ' "seven".parse::<f32>()?;'], 2, "invalid float literal", id="error after output"),
        pytest.param([('println!("the chart was here");', "figure")], 2, "is tagged `figure` and shows none", id="removed figure"),
        pytest.param([(EMIT_EMPTY_TABLE, "table")], 2, "is tagged `table` and shows none", id="table without a row"),
        pytest.param([DEP, PRELUDE, (CHART_OF_NAN, "figure")], 4, "NaN", id="figure of NaN"),
        pytest.param(["std::process::exit(3);"], 2, "exit status: 3", id="dead process"),
        pytest.param([KILL_CELL], 2, "SIGKILL", id="process killed by the system"),
        pytest.param([KILL_EVCXR], 2, "evcxr was ended by SIGKILL", id="dead kernel"),
        pytest.param(["no_such_function();"], 2, "cannot find function", id="does not compile"),
    ],
)
def test_a_planted_failure_stops_the_report(tmp_path, cells, cell, message):
    leave_good_report(tmp_path)
    result = make_report(tmp_path, *cells, "let after = 1;")
    source = cells[cell - 2]
    assert_refused(tmp_path, result, cell, source if isinstance(source, str) else source[0], message)


def test_a_corrupt_data_file_stops_the_report(tmp_path):
    leave_good_report(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    for name in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]:
        (data / f"{name}-ubyte.gz").write_bytes(b"\x1f\x8b\x08 these are no images")
    load = "let data: fashion_knn::fashion::Fashion = fashion_knn::fashion::load()?;"
    result = make_report(tmp_path, DEP, load, FASHION_MNIST_DIR=str(data))
    assert_refused(tmp_path, result, 3, load, "train-images-idx3-ubyte")
