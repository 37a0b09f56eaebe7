"""SIFT descriptors of pictures: the corpus "sift".

usage: sift.py PICTURES_FOLDER OUT_FOLDER
"""
import re
import sys
from pathlib import Path

import cv2
import numpy as np

from common import SEED, save, split_queries

# A picture is made no wider than this, so that one of 5,640 pixels is no different from the rest.
WIDEST = 3840
# And gives no more than this many descriptors, so that no picture is most of the corpus.
MOST_OF_A_PICTURE = 25_000
QUERIES = 2000


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


def descriptors(path, sift, rng):
    """The descriptors of one picture, n × 128 bytes."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        return np.zeros((0, 128), np.uint8)
    scale = WIDEST / max(picture.shape)
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    keypoints = sift.detect(picture, None)
    if len(keypoints) > MOST_OF_A_PICTURE:
        chosen = rng.choice(len(keypoints), MOST_OF_A_PICTURE, replace=False)
        keypoints = [keypoints[i] for i in chosen]
    if not keypoints:
        return np.zeros((0, 128), np.uint8)
    _, found = sift.compute(picture, keypoints)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def main(folder, out):
    rng = np.random.default_rng(SEED)
    # Half of OpenCV's default contrast: backgrounds are smooth.
    sift = cv2.SIFT_create(contrastThreshold=0.02)
    parts = []
    for path in pictures(folder):
        parts.append(descriptors(path, sift, rng))
        print(f"{len(parts[-1]):6} descriptors of {path.name}", flush=True)
    base, queries = split_queries(np.concatenate(parts), QUERIES)
    save(out, "sift", base, queries)


if __name__ == "__main__":
    main(*sys.argv[1:])
