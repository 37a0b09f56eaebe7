"""Runs a notebook in a fresh kernel, up to the first cell that fails."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from queue import Empty

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from .check import Failure, check_cell, check_notebook

KERNEL = "fashion-knn"
CELL_TIMEOUT = 1_800  # seconds
GRACE = 0.05  # seconds

# Compiled and run after the last cell. What the cells wrote to stderr comes through the same pipe before it.
END = "end of the notebook's stderr"
END_CELL = f'eprintln!("{END}");'


class CellFailed(Exception):
    """A cell failed; those after it were not run."""

    def __init__(self, failure: Failure):
        super().__init__(failure.message)
        self.failure = failure


class Client(NotebookClient):
    """nbclient drops what a kernel sends after it called a cell finished. For evcxr that is wrong: stderr comes from a
    thread of its own, and the only word on a failed `?` may come late. Here it is kept, with the cell it belongs to."""

    def __init__(self, notebook: NotebookNode, **options):
        super().__init__(notebook, **options)
        self.cells_by_request: dict[str, tuple[NotebookNode, int]] = {}

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

    def keep_late(self, message: dict) -> None:
        request = message["parent_header"].get("msg_id")
        if message["msg_type"] in ("stream", "error") and request in self.cells_by_request:
            cell, index = self.cells_by_request[request]
            self.process_message(message, cell, index)

    async def take_late(self) -> None:
        """Takes what is still on its way, until nothing came for a moment."""
        while await self.kc.iopub_channel.msg_ready() or await self._comes_soon():
            self.keep_late(await self.kc.iopub_channel.get_msg(timeout=None))

    async def _comes_soon(self) -> bool:
        await asyncio.sleep(GRACE)
        return await self.kc.iopub_channel.msg_ready()

    async def run_cell(self, index: int) -> None:
        cell = self.nb.cells[index]
        try:
            await self.async_execute_cell(cell, index)
        except CellTimeoutError:
            raise failed(cell, index, f"took longer than {self.timeout} s") from None
        except DeadKernelError:
            raise failed(cell, index, "the kernel died") from None
        except Empty:
            raise failed(cell, index, "the kernel no longer answers") from None
        await self.take_late()
        if failure := check_cell(cell, index + 1):
            raise CellFailed(failure)

    async def run(self, progress) -> None:
        # What the kernel itself logs, such as a connection that Jupyter closed, is no output of a cell.
        async with self.async_setup_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            for index, cell in enumerate(self.nb.cells):
                if cell.cell_type == "code" and cell.source.strip():
                    started = time.monotonic()
                    await self.run_cell(index)
                    progress(index, cell, time.monotonic() - started)
            await self.check_end()

    async def check_end(self) -> None:
        """Waits until everything on stderr has come, however late, and looks at every cell again."""
        end = new_code_cell(END_CELL)
        self.nb.cells.append(end)
        await self.async_execute_cell(end, len(self.nb.cells) - 1)
        for _ in range(200):
            if any(END in output.get("text", "") for output in end.outputs):
                break
            await self.take_late()
        else:
            raise CellFailed(Failure(len(self.nb.cells), "(end of the notebook)", "the kernel no longer answers"))
        self.nb.cells.pop()
        if failures := check_notebook(self.nb):
            raise CellFailed(failures[0])
        late = "".join(output.get("text", "") for output in end.outputs).replace(END, "").strip()
        if late:
            raise CellFailed(Failure(len(self.nb.cells), "(end of the notebook)", f"on stderr: {late}"))


def failed(cell: NotebookNode, index: int, message: str) -> CellFailed:
    return CellFailed(Failure(index + 1, cell.source.strip().splitlines()[0], message))


def execute(path: Path, kernel: str = KERNEL, timeout: int = CELL_TIMEOUT, quiet: bool = False) -> NotebookNode:
    """The executed notebook; raises `CellFailed` at the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    count = len(notebook.cells)

    def progress(index: int, cell: NotebookNode, seconds: float) -> None:
        if not quiet:
            line = cell.source.strip().splitlines()[0]
            print(f"  {path.stem}, cell {index + 1} of {count}: {seconds:.1f} s  {line[:60]}", file=sys.stderr, flush=True)

    client = Client(
        notebook,
        kernel_name=kernel,
        timeout=timeout,
        startup_timeout=300,
        allow_errors=True,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    asyncio.run(client.run(progress))
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
