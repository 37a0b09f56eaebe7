"""SIFT1M as it is read from its files (tools/corpora/texmex.py). It needs NumPy, which `make sift` installs into
.venv-corpora; without it the test is left out: .venv-corpora/bin/python -m pytest tools/tests/test_corpora.py"""

import subprocess
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

SCRIPTS = Path(__file__).parents[1] / "corpora"
sys.path.insert(0, str(SCRIPTS))
texmex = pytest.importorskip("texmex")


def written(folder, name, rows):
    """Rows as an .fvecs file, each behind its dimension."""
    with open(folder / name, "wb") as file:
        for row in rows:
            file.write(np.array([len(row)], "<i4").tobytes() + np.array(row, "<f4").tobytes())
    return folder / name


def rows(count):
    return np.arange(count * 128).reshape(count, 128) % 219


def test_the_rows_are_those_of_the_file(tmp_path):
    path = written(tmp_path, "a.fvecs", rows(20))
    found = texmex.descriptors(path, 20)
    assert found.dtype == np.uint8 and (found == rows(20)).all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows[:19], "expected 20 rows"),
        (lambda rows: rows[:, :127], "expected 20 rows"),
        (lambda rows: rows + 0.5, "no whole number"),
        (lambda rows: rows + 100, "no whole number"),
        (lambda rows: rows - 1, "no whole number"),
        (lambda rows: np.where(rows == 7, np.nan, rows), "no whole number"),
    ],
)
def test_what_is_no_sift1m_is_refused(tmp_path, change, expected):
    path = written(tmp_path, "a.fvecs", change(rows(20).astype(float)))
    with pytest.raises(ValueError, match=expected):
        texmex.descriptors(path, 20)


def test_a_row_of_another_dimension_is_refused(tmp_path):
    path = written(tmp_path, "a.fvecs", rows(20))
    data = bytearray(path.read_bytes())
    data[0] = 64
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not of 128 dimensions"):
        texmex.descriptors(path, 20)


def test_a_wrong_folder_is_told_in_a_line_and_nothing_is_written(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, SCRIPTS / "texmex.py", out, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("SIFT_DIR: ") and done.stderr.count("\n") == 1
    assert "sift_base.fvecs" in done.stderr and not out.exists()
