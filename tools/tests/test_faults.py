"""The commands behind the Makefile, killed at any moment, and on a disk that is full or read-only.

They are killed by SIGKILL at random moments, as many as FASHION_KNN_KILLS says (1 if it says nothing), and, where strace
is installed, at as many of the system calls on the files that they write.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TOOLS = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("FASHION_KNN_KILLS", "1"))
# A "?" stands before those that some processors do not have.
CALLS = "openat,write,fsync,close,?rename,?renameat,renameat2,?unlink,unlinkat"
# The arguments of each command, and the files that it writes.
COMMANDS = {
    "execute": (["notebooks/N.ipynb", "notebooks/html/N.ipynb"], ["notebooks/html/N.ipynb"]),
    "export": (["notebooks/html/N.ipynb", "notebooks/html/N.html"], ["notebooks/html/N.html"]),
    "index": (["notebooks/html/index.html", "notebooks/html/N.ipynb"], ["notebooks/html/index.html"]),
    "publish": (["notebooks/html", "notebooks/N.ipynb"], ["notebooks/N.ipynb", "docs/speed.svg"]),
}

# A kernel that answers every cell with a figure. Of the cell after the last it prints the text, as the real one does.
KERNEL = '''
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

class Figures(Kernel):
    implementation, implementation_version, banner = "figures", "1", ""
    language_info = {"name": "rust", "mimetype": "text/rust", "file_extension": ".rs"}

    async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
        if code.startswith("eprintln"):
            self.send_response(self.iopub_socket, "stream", {"name": "stderr", "text": code.split('"')[1]})
        else:
            data = {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>"}
            content = {"data": data, "metadata": {}, "execution_count": self.execution_count}
            self.send_response(self.iopub_socket, "execute_result", content)
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

IPKernelApp.launch_instance(kernel_class=Figures)
'''


class Project:
    """A checkout of one notebook, and what each command makes of it."""

    def __init__(self, folder: Path):
        self.folder = folder / "checkout"
        kernel = folder / "jupyter/kernels/fashion-knn"
        kernel.mkdir(parents=True)
        (kernel / "kernel.py").write_text(KERNEL)
        argv = f'["{sys.executable}", "{kernel}/kernel.py", "-f", "{{connection_file}}"]'
        (kernel / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "Figures", "language": "rust"}}')
        self.environment = os.environ | {
            "JUPYTER_PATH": str(folder / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "PYTHONPATH": str(TOOLS),
        }
        for name in ["notebooks/html", "docs", "data/results"]:
            (self.folder / name).mkdir(parents=True)
        cells = [new_markdown_cell("# Un títol"), new_code_cell("chart()", metadata={"tags": ["figure", "readme-speed"]})]
        nbformat.write(new_notebook(cells=cells), self.folder / "notebooks/N.ipynb")

    def start(self, command: str, before: list[str] = ()) -> subprocess.Popen:
        arguments = [*before, sys.executable, "-m", "report", command, *COMMANDS[command][0]]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(arguments, cwd=self.folder, env=self.environment, **pipes)

    def run(self, command: str, before: list[str] = ()) -> tuple[int, str]:
        process = self.start(command, before)
        _, told = process.communicate()
        return process.returncode, told

    def succeed(self, command: str, before: list[str] = ()) -> None:
        status, told = self.run(command, before)
        assert status == 0, told

    def files(self) -> dict[str, bytes]:
        """All files, hidden ones too."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def restore(self, files: dict[str, bytes]) -> None:
        """What is there becomes these files."""
        for name in self.files():
            (self.folder / name).unlink()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A project; its files before and after each command, run in order, and how long that took."""
    project = Project(tmp_path_factory.mktemp("project"))
    found = {}
    for command in COMMANDS:
        before, start = project.files(), time.monotonic()
        project.succeed(command)
        found[command] = before, project.files(), time.monotonic() - start
        # What a command replaces is the last good one: as good as any other to have been there.
        if command != "publish":
            before |= {name: b"the last good one" for name in COMMANDS[command][1]}
    return project, found


@pytest.fixture(params=COMMANDS)
def case(request, states):
    """A command, ready to run: the files before it and after it."""
    project, found = states
    before, after, _ = found[request.param]
    project.restore(before)
    return project, request.param, before, after


def check_killed(project: Project, command: str, before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Every file is as before or as after it; then the command again, and all is as after it."""
    for name, content in project.files().items():
        is_whole = content in (before.get(name), after.get(name))
        assert is_whole or name.endswith(".tmp") and Path(name).name.startswith("."), name
    assert before.keys() <= project.files().keys()
    project.succeed(command)
    assert project.files() == after


def test_a_command_killed_at_any_moment_loses_nothing(case, states):
    project, command, before, after = case
    whole = states[1][command][2]
    draw = random.Random(command)
    for _ in range(KILLS):
        project.restore(before)
        process = project.start(command)
        time.sleep(whole * draw.random())
        process.kill()
        process.communicate()
        check_killed(project, command, before, after)


def test_a_command_killed_at_a_call_on_its_files_loses_nothing(case, tmp_path):
    if not shutil.which("strace") or subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
        pytest.skip("no strace that works here")
    project, command, before, after = case
    strace = ["strace", "-qq", "-e", f"trace={CALLS}"]
    for name in COMMANDS[command][1]:
        # As the command calls it (publish goes from the notebook to the figure), and as the system does.
        for folder in ["", "notebooks/../", f"{project.folder}/"]:
            path = Path(folder + name)
            strace += ["-P", f"{folder}{name}", "-P", f"{folder}{name.replace(path.name, f'.{path.name}.tmp')}"]
    project.succeed(command, [*strace, "-o", str(tmp_path / "calls")])
    # "openat(AT_FDCWD, ...) = 3": which call, and how many of its kind so far; strace counts each kind by itself.
    names = [line.partition("(")[0] for line in (tmp_path / "calls").read_text().splitlines()]
    calls = [(name, names[:place].count(name) + 1) for place, name in enumerate(names)]
    assert len(calls) >= 5, "it opens, writes, flushes, closes and renames a file at least"
    for name, number in calls if KILLS >= len(calls) else random.Random(command).sample(calls, KILLS):
        project.restore(before)
        kill = [*strace, "-o", "/dev/null", "-e", f"inject={name}:signal=SIGKILL:when={number}"]
        status, told = project.run(command, kill)
        assert status == -signal.SIGKILL, told
        check_killed(project, command, before, after)


# As in tests/disk.rs: a disk of its own for the process, and a limit that every system has.
DISK = """
    cp -R checkout before && mount -t tmpfs -o size=1m tmpfs checkout && cp -R before/. checkout || exit 99
    cd checkout
    case $1 in
        full) cat /dev/zero >filler 2>/dev/null ;;
        read-only) mount -o remount,ro . || exit 99 ;;
    esac
    shift
    "$@"
    code=$?
    cp -R . ../after && rm -rf ../after/filler ../before && exit $code
"""
LIMITED = """
    ulimit -f 0
    cd checkout
    exec "$@"
"""


@pytest.mark.parametrize(("fault", "why"), [("full", "No space left"), ("read-only", "Read-only file"), ("limit", "File too large")])
def test_a_command_that_cannot_write_says_so_and_leaves_what_was_there(case, fault, why):
    project, command, before, _ = case
    folder = project.folder.parent
    own_disk = ["unshare", "--map-root-user", "--mount"]
    if fault == "limit":
        if command == "execute":
            pytest.skip("Jupyter could not even write down how to reach the kernel")
        shell = ["sh", "-c", LIMITED, "sh"]
    elif subprocess.run([*own_disk, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
        pytest.skip("a process gets no disk of its own here")
    else:
        shell = [*own_disk, "sh", "-c", DISK, "sh", fault]
    arguments = [*shell, sys.executable, "-m", "report", command, *COMMANDS[command][0]]
    result = subprocess.run(arguments, cwd=folder, env=project.environment, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("FAILED: ")]
    assert why in line and COMMANDS[command][1][0] in line, result.stderr
    assert "Traceback" not in result.stderr
    if fault != "limit":
        # What was on the disk of its own.
        shutil.rmtree(project.folder)
        (folder / "after").rename(project.folder)
    assert project.files() == before


def test_a_kernel_ends_with_a_jupyter_that_was_killed(tmp_path):
    evcxr = tmp_path / "evcxr"
    evcxr.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid && exec sleep 600\n")
    evcxr.chmod(0o755)
    launch = "import sys; sys.path.insert(0, sys.argv[1]); import kernel; kernel.run(sys.argv[2], 'none', {})"
    jupyter = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {launch!r}, *sys.argv[1:]])"
    parent = subprocess.Popen([sys.executable, "-c", jupyter, TOOLS, evcxr])
    wait_until(lambda: (tmp_path / "pid").exists())
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def wait_until(happened) -> None:
    for _ in range(200):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it has not happened within 10 s")
