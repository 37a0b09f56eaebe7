"""Every index at its defaults over both corpora, k = 10: make corpora-test.

usage: test.py FOLDER_OF_THE_CORPORA FOLDER_OF_THE_RECORD COMMAND...

COMMAND runs our `measure`. The rows go to embeddings.csv and sift.csv of the record. Fails if an exact
index has a recall below 1, or an approximate one below its floor.
"""
import csv
import subprocess
import sys
from pathlib import Path

# What an approximate index finds at its defaults, at least. A floor that holds is raised, not lowered.
FLOOR = 0.80
FLOORS = {
    "embeddings": {},
    "sift": {},
}
QUERIES = 500


def indexes(measure):
    """Of each index that `measure --list` names: whether it is exact."""
    listed = subprocess.run([*measure, "--list"], capture_output=True, text=True, check=True).stdout
    heads = [line for line in listed.splitlines() if not line.startswith(" ")]
    return {line.split(":")[0]: line.endswith(", exact") for line in heads}


def measured(measure, corpora, corpus, index, out):
    """Measures one index at its defaults; its row of the record."""
    before = len(rows(out))
    command = [*measure, "--index", index, "--name", corpus, "--k", "10", "--threads", "0",
               "--data", corpora / f"{corpus}-base.npy",
               "--queries", corpora / f"{corpus}-queries.npy",
               "--n-queries", str(QUERIES), "--out", out]
    subprocess.run(command, check=True)
    return rows(out)[before]


def rows(path):
    return list(csv.DictReader(open(path, newline=""))) if path.exists() else []


def test(measure, corpora, record, corpus):
    """The complaints about a corpus. Its new rows take the place of the old ones at the end."""
    new = record / f"{corpus}.csv.new"
    new.unlink(missing_ok=True)
    complaints = []
    for index, exact in indexes(measure).items():
        recall = float(measured(measure, corpora, corpus, index, new)["recall"])
        floor = 1 if exact else FLOORS[corpus].get(index, FLOOR)
        if recall < floor:
            complaints.append(f"{corpus}: {index} has a recall of {recall:.4f}, below {floor}")
    subprocess.run([*measure, "--replace-from", new, "--out", record / f"{corpus}.csv"], check=True)
    new.unlink()
    return complaints


def main(corpora, record, *measure):
    complaints = []
    for corpus in FLOORS:
        complaints += test(measure, Path(corpora), Path(record), corpus)
    sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main(*sys.argv[1:])
