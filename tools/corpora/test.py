"""Every index at its defaults over both corpora, k = 10: make corpora-test.

usage: test.py FOLDER_OF_THE_CORPORA FOLDER_OF_THE_RECORD COMMAND...

COMMAND runs our `measure`. The rows go to embeddings.csv and sift.csv of the record. Fails if an exact
index has a recall below 1, or an approximate one below its floor.
"""
import csv
import subprocess
import sys
from pathlib import Path

# What an approximate index finds at its defaults, at least; FLOORS has what is asked of single ones,
# {"embeddings": {"hnsw": 0.9}}. A floor that holds is raised, never lowered.
FLOOR = 0.80
FLOORS = {
    "embeddings": {},
    "sift": {},
}
QUERIES = 500


def exact_indexes(measure):
    """Those that `measure --list` calls exact."""
    listed = subprocess.run([*measure, "--list"], capture_output=True, text=True, check=True).stdout
    return {line.split(":")[0] for line in listed.splitlines() if line.endswith(", exact")}


def measured(measure, corpora, corpus, record):
    """The rows of all indexes over a corpus, which then stand in the record."""
    new = record / f"{corpus}.csv.new"
    new.unlink(missing_ok=True)
    # A sweep over nothing is one run an index, at its defaults. Threads 0: one a core builds.
    command = [*measure, "--sweep", "", "--threads", "0", "--k", "10", "--name", corpus,
               "--data", corpora / f"{corpus}-base.npy",
               "--queries", corpora / f"{corpus}-queries.npy",
               "--n-queries", str(QUERIES), "--out", new]
    subprocess.run(command, check=True)
    rows = list(csv.DictReader(new.read_text().splitlines()))
    subprocess.run([*measure, "--replace-from", new, "--out", record / f"{corpus}.csv"], check=True)
    new.unlink()
    return rows


def main(corpora, record, *measure):
    exact = exact_indexes(measure)
    complaints = []
    for corpus, floors in FLOORS.items():
        for row in measured(measure, Path(corpora), corpus, Path(record)):
            index, recall = row["index"], float(row["recall"])
            floor = 1 if index in exact else floors.get(index, FLOOR)
            if recall < floor:
                complaints.append(f"{corpus}: {index} has a recall of {recall:.4f}, below {floor}")
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main(*sys.argv[1:])
