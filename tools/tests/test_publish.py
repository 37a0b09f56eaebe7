"""Notebooks fit for git, whose outputs belong to their cells."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from report.publish import NotPublishable, check_published, publish

SVG = "<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>"
READS = 'record("pixels.csv")?'


def notebook(text="5", source=READS, picture=SVG):
    figure = new_output("execute_result", data={"image/svg+xml": picture}, execution_count=2)
    stream = new_output("stream", name="stdout", text=text)
    timing = {"execution": {"iopub.status.idle": "x"}, "tags": ["figure", "readme-speed"]}
    cells = [
        new_markdown_cell("# Un títol"),
        new_code_cell(source, outputs=[stream], execution_count=1),
        new_code_cell("chart()", outputs=[figure], execution_count=2, metadata=timing),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"c{number}"
    return new_notebook(cells=cells)


def without_outputs(made):
    for cell in made.cells[1:]:
        cell.outputs, cell.execution_count = [], None
    return made


@pytest.fixture
def folders(tmp_path):
    """A source without outputs, an executed notebook, and the record that it reads."""
    for folder in ["notebooks/html", "data/results"]:
        (tmp_path / folder).mkdir(parents=True)
    nbformat.write(without_outputs(notebook()), tmp_path / "notebooks/N.ipynb")
    nbformat.write(notebook(), tmp_path / "notebooks/html/N.ipynb")
    (tmp_path / "data/results/pixels.csv").write_text("recall\n0.9\n")
    (tmp_path / "data/results/other.csv").write_text("recall\n0.9\n")
    return tmp_path


def published(folders):
    publish(folders / "notebooks/N.ipynb", folders / "notebooks/html/N.ipynb")
    return folders / "notebooks/N.ipynb"


def edited(path, change):
    """The notebook after an edit, saved as an editor would."""
    made = nbformat.read(path, as_version=4)
    change(made)
    nbformat.write(made, path)


def test_publishing_twice_changes_nothing(folders):
    before = (folders / "notebooks/N.ipynb").stat().st_mtime_ns
    source = published(folders)
    first = source.read_text()
    assert "rect width" in first and "iopub" not in first
    assert source.stat().st_mtime_ns == before, "make would take it for changed"
    assert published(folders).read_text() == first


def test_what_was_published_is_accepted(folders):
    source = published(folders)
    assert check_published(source) == []
    (folders / "data/results/other.csv").write_text("a record that it does not read")
    edited(source, lambda made: made.cells[0].metadata.update(collapsed=True))
    assert check_published(source) == [], "nothing that counts has changed"


def test_the_readme_has_its_figure(folders):
    source = published(folders)
    figure = folders / "docs/speed.svg"
    assert figure.read_text() == SVG
    figure.write_text(SVG.replace("9", "8"))
    [message] = check_published(source)
    assert "speed.svg" in message
    figure.unlink()
    assert len(check_published(source)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.cells[1].update(source='record("pixels.csv")?.height()'), "its cells, or the records"),
        (lambda made: made.cells[0].update(source="# Un altre títol"), "its cells, or the records"),
        (lambda made: made.cells.pop(), "its cells, or the records"),
        (lambda made: made.cells[2].metadata.tags.append("answer-A1"), "its cells, or the records"),
        (lambda made: made.cells[1].outputs[0].update(text="6"), "its outputs are not those"),
        (lambda made: made.cells[2].update(outputs=[]), "is tagged `figure` and shows none"),
        (lambda made: made.cells[1].update(outputs=[], execution_count=None), "was not executed"),
        (lambda made: made.metadata.pop("fashion_knn"), "has no outputs in git"),
    ],
)
def test_outputs_that_do_not_belong_are_refused(folders, change, message):
    source = published(folders)
    edited(source, change)
    assert message in "\n".join(check_published(source))


def test_a_record_measured_anew_makes_the_outputs_stale(folders):
    source = published(folders)
    (folders / "data/results/pixels.csv").write_text("recall\n0.95\n")
    assert ["records that they read" in message for message in check_published(source)] == [True]


SOMEBODYS = "/".join(["", "home", "someone", "x.csv"])


@pytest.mark.parametrize(
    ("executed", "message"),
    [
        (notebook(f"saved to {SOMEBODYS}"), "cell 2: its output holds a path of this machine"),
        (notebook(picture=SVG.replace("/>", f"/><text>{SOMEBODYS}</text>", 1)), "cell 3: its output holds a path"),
        (notebook("done at 23:59:58"), "cell 2: its output holds a time of day"),
        (notebook("7" * 4_000_000), "bytes with its outputs"),
        (notebook(source="k + 1"), "has changed since it was executed"),
    ],
)
def test_what_does_not_belong_in_git_is_refused(folders, executed, message):
    nbformat.write(executed, folders / "notebooks/html/N.ipynb")
    before = (folders / "notebooks/N.ipynb").read_text()
    with pytest.raises(NotPublishable, match=message):
        published(folders)
    assert (folders / "notebooks/N.ipynb").read_text() == before


def test_a_path_in_a_cell_is_refused(folders):
    for place in ["notebooks/N.ipynb", "notebooks/html/N.ipynb"]:
        edited(folders / place, lambda made: made.cells[1].update(source=f'read("{SOMEBODYS}")'))
    with pytest.raises(NotPublishable, match="cell 2: its source holds a path of this machine"):
        published(folders)


def test_letters_of_an_embedded_picture_are_no_path(folders):
    picture = SVG.replace("/>", "/><image href='data:image/png;base64,AAAA+/home/abc='/>", 1)
    nbformat.write(notebook(picture=picture), folders / "notebooks/html/N.ipynb")
    assert check_published(published(folders)) == []


def test_a_report_with_other_parameters_is_refused(folders):
    parameters = folders / "notebooks/html/.parameters"
    parameters.write_text("K=7\nEPOCHS=\n")
    with pytest.raises(NotPublishable, match="was made with K=7"):
        published(folders)
    parameters.write_text("K=\nEPOCHS=\nFASHION_MNIST_DIR=/elsewhere\n")
    assert check_published(published(folders)) == []
