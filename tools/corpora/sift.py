"""SIFT descriptors of pictures: the corpora "sift" and "sift-1m".

usage: sift.py PICTURES_FOLDER OUT_FOLDER sift|sift-1m

PICTURES_FOLDER has a folder a package. Several pictures are worked on at once, each with random numbers of
its own: the corpus is the same whatever the machine.
"""
import multiprocessing
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from common import SEED, save, save_origin, split_queries

# A picture is made no wider than this, so that one of 5,640 pixels is no different from the rest.
WIDEST = 3840
# Half of OpenCV's default contrast: backgrounds are smooth.
CONTRAST = 0.02
# Pictures worked on at once. The largest take 4 GB each, so more than two are too many for some machines.
PROCESSES = 2


@dataclass
class Corpus:
    """How a corpus is made of the pictures' descriptors."""
    name: str
    # Descriptors taken of one picture at most, so that no picture is most of the corpus.
    most_of_a_picture: int
    n_queries: int
    # Rows of the base; None for all that are left.
    n_base: int | None = None


# All that these pictures have at 25,000 each are 700,000; at 60,000, 6 % of the whole, a million and some.
CORPORA = [
    Corpus("sift", most_of_a_picture=25_000, n_queries=2_000),
    Corpus("sift-1m", most_of_a_picture=60_000, n_queries=10_000, n_base=1_000_000),
]


def pictures(folder):
    """The pictures below a folder in a fixed order: of each the largest of its sizes.

    Packages bring a picture in several sizes, named 2560x1600.jpg or Elephants_3840x2160.jpg. Two sizes
    of one picture would give every descriptor twice, up to rounding.
    """
    largest = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp") or path.is_symlink():
            continue
        if path.stem == "screenshot":  # the small preview of a wallpaper
            continue
        picture = path.parent / re.sub(r"_?\d+x\d+$", "", path.stem)
        if picture not in largest or path.stat().st_size > largest[picture].stat().st_size:
            largest[picture] = path
    return list(largest.values())


def descriptors(path, most, rng):
    """The descriptors of one picture, n × 128 bytes, n at most `most`."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        return np.zeros((0, 128), np.uint8)
    scale = WIDEST / max(picture.shape)
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT_create(contrastThreshold=CONTRAST)
    keypoints = sift.detect(picture, None)
    if len(keypoints) > most:
        chosen = rng.choice(len(keypoints), most, replace=False)
        keypoints = [keypoints[i] for i in chosen]
    if not keypoints:
        return np.zeros((0, 128), np.uint8)
    _, found = sift.compute(picture, keypoints)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def of_one_picture(task):
    """The same for a worker, which takes one argument: the picture's place and path, and `most`."""
    number, path, most = task
    return descriptors(path, most, np.random.default_rng([SEED, number]))


def of_all_pictures(paths, most):
    """The descriptors of all pictures in their order, and how many pictures had any."""
    tasks = [(number, path, most) for number, path in enumerate(paths)]
    parts = []
    # "spawn": OpenCV has threads of its own, which a fork would lose. Here each worker is one thread.
    with multiprocessing.get_context("spawn").Pool(PROCESSES, cv2.setNumThreads, (1,)) as pool:
        for path, found in zip(paths, pool.imap(of_one_picture, tasks)):
            print(f"{len(found):6} descriptors of {path.name}", flush=True)
            parts.append(found)
    return np.concatenate(parts), sum(len(part) > 0 for part in parts)


def main(folder, out, name):
    corpus = next((corpus for corpus in CORPORA if corpus.name == name), None)
    if corpus is None:
        sys.exit(f"{name}: expected one of {', '.join(corpus.name for corpus in CORPORA)}")
    paths = pictures(folder)
    if not paths:
        sys.exit(f"{folder}: there are no pictures")
    rows, used = of_all_pictures(paths, corpus.most_of_a_picture)
    base, queries = split_queries(rows, corpus.n_queries)
    if corpus.n_base is not None:
        if len(base) < corpus.n_base:
            sys.exit(f"{len(base) + len(queries):,} distinct descriptors, "
                     f"{corpus.n_base + corpus.n_queries:,} are needed: are packages missing in {folder}?")
        base = base[:corpus.n_base]
    save(out, name, base, queries)
    packages = sorted({path.relative_to(folder).parts[0] for path in paths})
    save_origin(out, name, {"name": f"{name}-debian", "pictures": used, "packages": packages,
                            "opencv": cv2.__version__})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
