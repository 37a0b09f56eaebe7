"""Short English texts of several kinds, out of Debian packages: what the corpus "embeddings" encodes.

usage: texts.py PACKAGES_FOLDER OUT_FILE

A text is a paragraph of 5 to 80 words, a definition, a saying, or the description of a package. The
file gets one a line, in random order.
"""
import gzip
import random
import re
import subprocess
import sys
from pathlib import Path

from common import SEED

# How many texts of each kind at most: no kind is more than a quarter of the whole.
MOST = {
    "package descriptions": 6_000,
    "WordNet definitions": 9_000,
    "dictionary of computing": 7_000,
    "jargon file": 2_500,
    "manual pages": 6_000,
    "Python documentation": 8_000,
    "Perl documentation": 6_000,
    "sayings": 5_000,
}
ENOUGH = 46_000


def read(path):
    data = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    return data.decode("utf-8", "replace")


def files(folder, pattern):
    """Regular files whose path below `folder` matches; sorted, so that every run sees one order."""
    return sorted(p for p in Path(folder).glob(pattern) if p.is_file() and not p.is_symlink())


def paragraphs(text):
    return re.split(r"\n\s*\n", text)


def package_descriptions(_):
    """The first line of each description in apt's lists."""
    dump = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True)
    for line in dump.stdout.splitlines():
        if line.startswith(("Description: ", "Description-en: ")):
            yield line.split(": ", 1)[1]


def wordnet(folder):
    """The definitions, without the lists of synonyms behind them."""
    for path in files(folder, "dict-wn/**/wn.dict.dz"):
        for sense in re.split(r"\n +(?:n|v|adj|adv)? ?\d+: |\n(?=\S)", read(path)):
            yield re.sub(r"\[(syn|ant|also):.*", "", sense, flags=re.S)


def computing(folder):
    for path in files(folder, "dict-foldoc/**/foldoc.dict.dz"):
        for text in paragraphs(read(path)):
            yield re.sub(r"[{}]|<[^>]*>", "", text)


def jargon(folder):
    for path in files(folder, "dict-jargon/**/jargon.dict.dz"):
        for text in paragraphs(read(path)):
            yield re.sub(r"[{}]", "", text)


def manual_pages(folder):
    """The paragraphs of pages in roff, without its requests, tables and examples."""
    for path in files(folder, "manpages*/usr/share/man/man*/*.gz"):
        text = re.sub(r"(?ms)^\.(nf|EX|TS)\b.*?^\.(fi|EE|TE)\b.*?$", "", read(path))
        text = re.sub(r"(?m)^['.]\\\".*\n", "", text)
        # A font request leaves its words, any other request ends the paragraph.
        text = re.sub(r"(?m)^\.(?:B|I|BR|BI|RB|RI|IB|IR|SM|SB) (.*)$",
                      lambda found: found[1].replace('"', ""), text)
        text = re.sub(r"(?m)^\..*$", "\n", text)
        text = text.replace(r"\-", "-").replace(r"\e", "\\").replace(r"\(aq", "'")
        text = re.sub(r"\\f[A-Z]|\\f\(..|\\[&/,|^%]|\\s[-+]?\d", "", text)
        yield from paragraphs(text)


def python(folder):
    """The paragraphs of the reStructuredText sources."""
    for path in files(folder, "python3*-doc/**/_sources/**/*.rst.txt"):
        for text in paragraphs(read(path)):
            if not text.lstrip().startswith((".. ", ">>>", "$", "import ", "def ", "class ")):
                yield re.sub(r":[\w:]+:`[~!]?([^`]*)`", r"\1", text).replace("``", "")


def perl(folder):
    """The paragraphs of the pod sources that are prose."""
    for path in files(folder, "perl-doc/**/*.pod"):
        for text in paragraphs(read(path)):
            if not text.startswith(("=", " ", "\t")):
                yield re.sub(r"[A-Z]<+ ?([^<>]*?) ?>+", r"\1", text)


def sayings(folder):
    for path in files(folder, "fortunes/usr/share/games/fortunes/*"):
        if path.suffix == "" and path.name != "ascii-art":
            yield from read(path).split("\n%\n")


SOURCES = {
    "package descriptions": package_descriptions,
    "WordNet definitions": wordnet,
    "dictionary of computing": computing,
    "jargon file": jargon,
    "manual pages": manual_pages,
    "Python documentation": python,
    "Perl documentation": perl,
    "sayings": sayings,
}


def is_prose(text):
    """Five to eighty words and mostly letters: no table, no code, no heading."""
    letters = sum(c.isalpha() or c == " " for c in text)
    return 5 <= len(text.split()) <= 80 and letters > 0.8 * len(text)


def distinct(texts, seen):
    """Prose that does not occur in `seen`, where letters count and nothing else does."""
    for text in texts:
        text = " ".join(text.split())
        key = re.sub(r"[^a-z]", "", text.lower())
        if is_prose(text) and key not in seen:
            seen.add(key)
            yield text


def main(folder, out):
    rng = random.Random(SEED)
    seen, texts = set(), []
    for kind, source in SOURCES.items():
        found = list(distinct(source(folder), seen))
        chosen = rng.sample(found, min(len(found), MOST[kind]))
        print(f"{len(chosen):6} of {len(found):6} {kind}", flush=True)
        texts += chosen
    if len(texts) < ENOUGH:
        sys.exit(f"{len(texts)} texts, {ENOUGH} are needed: which package is missing in {folder}?")
    rng.shuffle(texts)
    beside = Path(out).with_suffix(".new")
    beside.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    beside.rename(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
