"""Is a notebook's cell as fast as a release build? Times examples/brute_force_batch.rs in both.

    python tools/cell_speed.py

Prints the best batch of each and their ratio, and fails below 0.95. On an otherwise idle machine, please.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from report.execute import execute

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/brute_force_batch.rs"


def seconds(text: str) -> float:
    """The best of the printed times: what disturbs a run only ever makes it longer."""
    return min(float(found) for found in re.findall(r"queries in ([\d.]+) s", text))


def in_release_binary() -> float:
    # As any program is built: without the flags of a shell or of make.
    env = {key: value for key, value in os.environ.items() if key not in ("RUSTFLAGS", "CARGO_BUILD_TARGET")}
    features = ["--no-default-features", "--features", "cli,files"]
    command = ["cargo", "run", "--quiet", "--release", *features, "--example", EXAMPLE.stem]
    ran = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    return seconds(ran.stdout)


def in_cell() -> float:
    source = "\n".join(line for line in EXAMPLE.read_text().splitlines() if not line.startswith("//!"))
    cells = [f':dep fashion-knn = {{ path = "{ROOT}" }}', f"{source}\nmain();"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speed.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
        executed = execute(path, quiet=True)
    return seconds("".join(output.get("text", "") for output in executed.cells[1].outputs))


def main() -> int:
    rounds = [(in_release_binary(), in_cell()) for _ in range(2)]
    release, cell = (min(times) for times in zip(*rounds))
    ratio = release / cell
    print(f"1,000 queries among 60,000 images: release binary {release:.4f} s, cell {cell:.4f} s, speed ratio {ratio:.3f}")
    return 0 if ratio >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
