"""How long does a reader wait? Runs notebooks in fresh kernels, as after a change of k, and takes the time.

    K=7 make report                # compiles what the notebooks need, computes what they keep
    K=9 python tools/response.py   # all four, or the notebooks that are named

Prints for each notebook two times, and fails where one is beyond what it should be at most:

- from the start of the kernel to the first result that a reader sees: 9 s;
- of the median cell, its computation included: 1 s.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CELL = re.compile(r", cell (\d+) of \d+: ([\d.]+) s")
FIRST_AT_MOST, MEDIAN_AT_MOST = 9.0, 1.0  # seconds


def run(notebook: Path, folder: Path) -> tuple[float, list[float]]:
    """Seconds from the start to the first result, and seconds of each cell of code."""
    executed = folder / notebook.name
    command = [sys.executable, "-m", "report", "execute", str(notebook), str(executed)]
    arrived, seconds = {}, {}
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr:
            if told := CELL.search(line):
                number = int(told[1])
                arrived[number], seconds[number] = time.monotonic() - start, float(told[2])
            else:
                print(line, end="", file=sys.stderr)
    if process.returncode:
        sys.exit(process.returncode)
    cells = json.loads(executed.read_text())["cells"]
    first = next(number for number, cell in enumerate(cells, 1) if cell.get("outputs"))
    return arrived[first], list(seconds.values())


def main() -> None:
    notebooks = [Path(name).resolve() for name in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        for notebook in notebooks:
            first, cells = run(notebook, Path(folder))
            median = statistics.median(cells)
            slow |= first > FIRST_AT_MOST or median > MEDIAN_AT_MOST
            longest = max(cells)
            print(
                f"{notebook.stem}: first result after {first:.1f} s; {len(cells)} cells, "
                f"median {median:.2f} s, longest {longest:.0f} s, together {sum(cells):.0f} s",
                flush=True,
            )
    if slow:
        sys.exit(f"a reader waits too long: {FIRST_AT_MOST} s to the first result, {MEDIAN_AT_MOST} s for a cell")


if __name__ == "__main__":
    main()
