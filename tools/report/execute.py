"""Runs a notebook in a fresh kernel, up to the first cell that fails."""

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty
from typing import BinaryIO

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from .check import Failure, check_cell, check_notebook

KERNEL = "fashion-knn"
CELL_TIMEOUT = 1_800  # seconds
GRACE = 0.05  # seconds
LAST_LINES = 12  # of what a kernel said before it died

# Compiled and run after the last cell. What the cells wrote to stderr comes through the same pipe before it.
END = "end of the notebook's stderr"
END_CELL = f'eprintln!("{END}");'


class CellFailed(Exception):
    """A cell failed; those after it were not run."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message)
        self.failure = failure


class Client(NotebookClient):
    """nbclient, which runs the cells, with two additions.

    After each cell the hook `judge` stops the run if the cell failed. And nothing on stderr is lost:
    nbclient drops what a kernel sends after it called a cell finished, but evcxr sends stderr from a
    thread of its own, so that the only word on a failed `?` may come late. Here it is kept, with the
    cell it belongs to.
    """

    def __init__(self, notebook: NotebookNode, name: str, quiet: bool, **options):
        super().__init__(notebook, on_cell_execute=self.begin, on_cell_executed=self.judge, **options)
        self.name, self.quiet = name, quiet
        self.count = len(notebook.cells)
        self.index, self.started = 0, 0.0
        self.cells_by_request: dict[str, tuple[NotebookNode, int]] = {}

    async def run(self) -> None:
        """Runs all cells; raises `CellFailed` for the first that fails."""
        end = new_code_cell(END_CELL)
        self.nb.cells.append(end)
        # What the kernel itself logs, such as a connection that Jupyter closed, is no output of a cell.
        # It is told only of a kernel that died.
        with tempfile.TemporaryFile() as log:
            try:
                await self.async_execute(stdout=subprocess.DEVNULL, stderr=log)
            except CellTimeoutError:
                raise self.failed(f"took longer than {self.timeout} s") from None
            except DeadKernelError:
                raise self.failed(f"the kernel died{last_words(log)}") from None
            except (Empty, RuntimeError) as error:  # RuntimeError: "Kernel died before replying", and the like
                raise self.failed(f"{error or 'the kernel no longer answers'}{last_words(log)}") from None
        self.nb.cells.pop()
        # A late message may have changed a cell that was judged before.
        if failures := check_notebook(self.nb):
            raise CellFailed(failures[0])
        if late := printed(end).replace(END, "").strip():
            raise CellFailed(Failure(self.count, "(end of the notebook)", f"on stderr: {late}"))

    def begin(self, cell: NotebookNode, cell_index: int) -> None:
        self.index, self.started = cell_index, time.monotonic()

    async def judge(self, cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        await self.take_late()
        if cell_index == self.count:
            await self.wait_for_end(cell)
            return
        if failure := check_cell(cell, cell_index + 1):
            raise CellFailed(failure)
        if execute_reply["content"]["status"] != "ok":
            raise self.failed(f"the kernel answered: {execute_reply['content']['status']}")
        if not self.quiet:
            place = f"{self.name}, cell {cell_index + 1} of {self.count}"
            seconds = time.monotonic() - self.started
            print(f"  {place}: {seconds:.1f} s  {first_line(cell)[:60]}", file=sys.stderr, flush=True)

    async def wait_for_end(self, end: NotebookNode) -> None:
        """Waits until everything on stderr has come, however late."""
        for _ in range(200):
            if END in printed(end):
                return
            await self.take_late()
        raise self.failed("the kernel no longer answers")

    async def take_late(self) -> None:
        """Takes what is still on its way, until nothing came for a moment."""
        while await self.kc.iopub_channel.msg_ready() or await self._comes_soon():
            self.keep_late(await self.kc.iopub_channel.get_msg(timeout=None))

    async def _comes_soon(self) -> bool:
        await asyncio.sleep(GRACE)
        return await self.kc.iopub_channel.msg_ready()

    def keep_late(self, message: dict) -> None:
        request = message["parent_header"].get("msg_id")
        if message["msg_type"] in ("stream", "error") and request in self.cells_by_request:
            cell, index = self.cells_by_request[request]
            self.process_message(message, cell, index)

    # nbclient has no hook here. This is its own loop, but for `keep_late`.
    async def _async_poll_output_msg(self, parent_msg_id: str, cell: NotebookNode, cell_index: int) -> None:
        self.cells_by_request[parent_msg_id] = (cell, cell_index)
        while True:
            message = await self.kc.iopub_channel.get_msg(timeout=None)
            if message["parent_header"].get("msg_id") != parent_msg_id:
                self.keep_late(message)
                continue
            self.process_message(message, cell, cell_index)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        # The base class raises at "idle"; the loop above looks for itself.
        return None if msg["msg_type"] == "status" else super().process_message(msg, cell, cell_index)

    def failed(self, message: str) -> CellFailed:
        return CellFailed(Failure(self.index + 1, first_line(self.nb.cells[self.index]), message))


def last_words(log: BinaryIO) -> str:
    """The last that a kernel said on its stderr, to stand after a sentence."""
    log.seek(0)
    lines = [line.rstrip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return "; it said last:\n" + "\n".join(lines[-LAST_LINES:]) if lines else "; it said nothing"


def first_line(cell: NotebookNode) -> str:
    return cell.source.strip().splitlines()[0]


def printed(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def execute(path: Path, kernel: str = KERNEL, timeout: int = CELL_TIMEOUT, quiet: bool = False) -> NotebookNode:
    """The executed notebook; raises `CellFailed` at the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = Client(
        notebook,
        path.stem,
        quiet,
        kernel_name=kernel,
        timeout=timeout,
        startup_timeout=300,
        allow_errors=True,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    asyncio.run(client.run())
    tidy(notebook)
    return notebook


def tidy(notebook: NotebookNode) -> None:
    """Leaves nothing that differs from run to run but the results; cells count from 1, as a reader does."""
    number = 0
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number if cell.source.strip() else None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = number
    notebook.metadata = {
        key: value for key, value in notebook.metadata.items() if key not in ("language_info", "widgets", "papermill")
    }
    notebook.metadata["language_info"] = {
        "file_extension": ".rs",
        "mimetype": "text/rust",
        "name": "rust",
        "pygments_lexer": "rust",
    }
