"""How long does a reader wait for a cell? Starts a kernel as JupyterLab does and takes the time.

    python tools/response.py

Prints two times, and what they should be at most:

- from the start of the kernel, with everything compiled, to the first result: 45 s;
- of a query cell that is run again with another k, what it takes beyond the search itself: 3 s (median).
"""

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from jupyter_client.manager import KernelManager

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
START = [':dep fashion-knn = { path = ".." }\nuse fashion_knn::prelude::*;', "let k: usize = 5;\nk"]
LOAD = [
    "let data: Fashion = fashion::load()?;",
    "let index: Arc<BruteForce> = Arc::new(BruteForce::build(data.train.clone(), Metric::Euclidean)?);",
]
QUERY = """let start = std::time::Instant::now();
let found: Neighbors = index.query_batch(&data.test.head(200), k)?;
println!("k = {k}: {} veïns, {:.3} s", found.row(0).len(), start.elapsed().as_secs_f64());"""


def run(client, source: str) -> tuple[float, str]:
    """Seconds until the cell is done, and what it printed."""
    printed = []
    start = time.monotonic()
    hook = lambda message: printed.append(str(message["content"].get("text", message["content"].get("evalue", ""))))  # noqa: E731
    client.execute_interactive(source, output_hook=hook, timeout=300)
    return time.monotonic() - start, "".join(printed)


def main() -> None:
    start = time.monotonic()
    manager = KernelManager(kernel_name="fashion-knn")
    manager.start_kernel(cwd=str(NOTEBOOKS), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=300)
        print(f"kernel ready after {time.monotonic() - start:.1f} s")
        for source in START:
            run(client, source)
        print(f"first result after {time.monotonic() - start:.1f} s")
        for source in LOAD:
            run(client, source)
        beyond = []
        for k in [5, 7, 9, 11, 13, 15, 17]:
            run(client, f"let k: usize = {k};")
            seconds, printed = run(client, QUERY)
            search = re.search(rf"k = {k}: {k} veïns, ([\d.]+) s", printed)
            if search is None:
                sys.exit(f"the query cell failed: {printed}")
            beyond.append(seconds - float(search[1]))
        print(f"query cell, again with another k: {statistics.median(beyond):.2f} s beyond the search (median of {len(beyond)})")
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


if __name__ == "__main__":
    main()
