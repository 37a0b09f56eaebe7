"""Commands behind the Makefile.

    python -m report execute NOTEBOOK EXECUTED   execute and check; EXECUTED is written only if every cell is as it should
    python -m report export EXECUTED PAGE        as an HTML page
    python -m report index PAGE EXECUTED...      the page that lists the reports
    python -m report style NOTEBOOK...           whether the code of the notebooks reads as a lesson; its figures
    python -m report format NOTEBOOK...          lay its cells out as rustfmt does, hide the code of prose
    python -m report publish FOLDER NOTEBOOK...  the executed outputs, from FOLDER, into the notebooks in git
    python -m report published NOTEBOOK...       whether the outputs in git belong to the cells as they stand
"""

import signal
import sys
from pathlib import Path

import nbformat

from . import files
from .execute import CellFailed, execute
from .export import export, index
from .publish import NotPublishable, check_published, publish
from .style import judge, put_in_order


def main(arguments: list[str]) -> int:
    # However it is stopped, it stops its kernel.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    match arguments:
        case ["execute", notebook, executed]:
            try:
                result = execute(Path(notebook))
            except CellFailed as failed:
                print(f"FAILED: {failed.failure.describe(notebook)}", file=sys.stderr)
                return 1
            files.write(Path(executed), nbformat.writes(result, indent=1) + "\n")
        case ["export", executed, page]:
            files.write(Path(page), export(nbformat.read(executed, as_version=4), Path(executed).stem))
        case ["index", page, *executed]:
            files.write(Path(page), index([Path(path) for path in executed]))
        case ["style", *notebooks] if notebooks:
            told, wrong = judge([Path(notebook) for notebook in notebooks])
            print("\n".join(told))
            return tell(wrong)
        case ["published", *notebooks] if notebooks:
            return tell([message for notebook in notebooks for message in check_published(Path(notebook))])
        case ["format", *notebooks] if notebooks:
            try:
                for notebook in notebooks:
                    print(f"{notebook}: {'in order now' if put_in_order(Path(notebook)) else 'was in order'}")
            except ValueError as error:
                print(f"FAILED: {notebook}: {error}", file=sys.stderr)
                return 1
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


def tell(wrong: list[str]) -> int:
    """Prints what is wrong; the status with which to end."""
    for message in wrong:
        print(f"FAILED: {message}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:  # a file that is not there, a disk that is full
        print(f"FAILED: {error}", file=sys.stderr)
        sys.exit(1)
