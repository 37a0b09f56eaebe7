"""The CNN of the report in PyTorch, trained for one epoch and run over the test images, on the CPU.

The peer of `benches/train.rs`: same images, architecture, batch size, optimizer, precision and threads. PyTorch is no
dependency of the project: `python -m venv V && V/bin/pip install torch numpy`, then `V/bin/python benches/train_peers.py`,
which times both (`--rust PROGRAM` names the bench's binary). Prints one CSV line for each system and stage.

PyTorch runs in the layout that its users get (contiguous, NCHW) and in channels_last, which is ours; the table has both.
"""

import argparse
import gzip
import pathlib
import subprocess
import time

import numpy as np
import torch
from torch import nn


def read(folder, name, header):
    path = pathlib.Path(folder) / name
    data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(name + ".gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=header)


def net(fc1, fc2):
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(32),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(64),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(64),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(128),
        nn.Flatten(), nn.Linear(128 * 9, fc1), nn.ReLU(), nn.Linear(fc1, fc2), nn.ReLU(), nn.Linear(fc2, 10),
    )


def measure(args, images, labels, test, memory_format):
    """Images a second in training (one epoch, data loading counted) and in extracting features."""
    torch.manual_seed(0)
    model = net(args.fc1, args.fc2).to(memory_format=memory_format)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loss_of = nn.CrossEntropyLoss()

    def step(rows):
        x = ((images[rows].float() / 255 - 0.286) / 0.353).unsqueeze(1).to(memory_format=memory_format)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(x), labels[rows])
        loss.backward()
        optimizer.step()
        return loss.item()

    for batch in range(5):
        step(torch.arange(batch * args.batch, (batch + 1) * args.batch))
    order = torch.randperm(len(images))
    start = time.perf_counter()
    losses = [step(rows) for rows in order.split(args.batch)]
    trained = len(images) / (time.perf_counter() - start)

    body = model[:-1].eval()
    rates = []
    with torch.inference_mode():
        for _ in range(args.repeats + 1):
            start = time.perf_counter()
            for batch in test.split(args.inference_batch):
                body(((batch.float() / 255 - 0.286) / 0.353).unsqueeze(1).to(memory_format=memory_format)).numpy()
            rates.append(len(test) / (time.perf_counter() - start))
    # The first pass warms up.
    return trained, sorted(rates[1:])[len(rates[1:]) // 2], sum(losses[-50:]) / len(losses[-50:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--rust", help="binary of benches/train.rs, run first in the same run")
    parser.add_argument("--images", type=int, default=20_000, help="training images in the epoch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--inference-batch", type=int, default=256)
    parser.add_argument("--fc1", type=int, default=128)
    parser.add_argument("--fc2", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    print("system,stage,images_per_s", flush=True)
    if args.rust:
        sizes = [args.images, args.threads, args.batch, args.fc1, args.fc2]
        subprocess.run([args.rust, *map(str, sizes)], check=True)
    images = torch.from_numpy(read(args.data, "train-images-idx3-ubyte", 16).reshape(-1, 28, 28)[: args.images].copy())
    labels = torch.from_numpy(read(args.data, "train-labels-idx1-ubyte", 8)[: args.images].astype(np.int64))
    test = torch.from_numpy(read(args.data, "t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28).copy())
    for name, memory_format in [("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)]:
        trained, extracted, loss = measure(args, images, labels, test, memory_format)
        print(f"PyTorch {torch.__version__} {name},train,{trained:.0f}")
        print(f"PyTorch {torch.__version__} {name},features,{extracted:.0f}", flush=True)


if __name__ == "__main__":
    main()
