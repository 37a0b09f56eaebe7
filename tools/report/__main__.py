"""Commands behind the Makefile.

    python -m report run NOTEBOOK FOLDER         execute, check, export: FOLDER/NAME.ipynb and FOLDER/NAME.html
    python -m report index FOLDER NAME...        FOLDER/index.html, which lists the reports
    python -m report publish FOLDER NOTEBOOK...  the executed outputs into the notebooks in git
"""

import sys
from pathlib import Path

import nbformat

from . import files
from .execute import CellFailed, execute
from .export import export, index
from .publish import NotPublishable, publish


def run(notebook: Path, folder: Path) -> None:
    executed = execute(notebook)
    page = export(executed, notebook.stem)
    files.write(folder / f"{notebook.stem}.ipynb", nbformat.writes(executed, indent=1) + "\n")
    files.write(folder / f"{notebook.stem}.html", page)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run", notebook, folder]:
            try:
                run(Path(notebook), Path(folder))
            except CellFailed as failed:
                print(f"FAILED: {failed.failure.describe(notebook)}", file=sys.stderr)
                return 1
        case ["index", folder, *names]:
            files.write(Path(folder) / "index.html", index([Path(folder) / f"{name}.ipynb" for name in names]))
        case ["publish", folder, *notebooks]:
            try:
                for notebook in map(Path, notebooks):
                    publish(notebook, Path(folder) / notebook.name)
            except NotPublishable as refused:
                print(f"FAILED: {refused}", file=sys.stderr)
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
