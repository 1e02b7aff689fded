"""What a training step costs beyond a plain loop: a tiny network on MNIST, where nothing else takes long.

    uv run experiments/benchmarks/step.py --root data --repeats 3

Both train the same network, a linear layer on 4x4 means, with SGD and batches of 32 for an epoch. Ours logs with W&B
offline, TensorBoard and CSV, has all default callbacks, and sums the accuracy.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import MNIST

from lightning_cnn.cli import main

BATCH = 32


@register_model
def tiny_linear(pretrained: bool = False, num_classes: int = 10, in_chans: int = 1, **_: Any) -> nn.Module:
    """A linear classifier of the means of 4x4 fields."""
    return nn.Sequential(nn.AvgPool2d(7), nn.Flatten(), nn.Linear(16 * in_chans, num_classes))


def plain(root: Path) -> float:
    """Milliseconds of a step in a plain loop over tensors in memory."""
    data = MNIST(str(root))
    pixels, labels = data.data.unsqueeze(1), data.targets
    network = timm.create_model("tiny_linear")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, fused=True)
    order = torch.randperm(len(pixels)).split(BATCH)
    start = time.perf_counter()
    for index in order:
        loss = F.cross_entropy(network((pixels[index].float() / 255 - 0.13) / 0.31), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 1000 * (time.perf_counter() - start) / len(order)


def ours(root: Path) -> float:
    """Milliseconds of a step of `lightning-cnn fit`, in its second epoch."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "fit", "--data", "MNIST", "--data.root", str(root), "--data.batch_size", str(BATCH),
            "--data.val_fraction", "0.0001", "--model.architecture", "tiny_linear", "--model.optimizer", "momentum",
            "--model.momentum", "0", "--model.lr", "0.01", "--trainer.max_epochs", "2", "--runs_dir", folder,
        ]  # fmt: skip
        if main(words) != 0:
            raise SystemExit("the training failed")
        (record,) = Path(folder).glob("*/*/run.json")
        return 1000 * BATCH / float(json.loads(record.read_text())["metrics"]["train/images_per_s"])


def run() -> None:
    """Runs both in turns and prints the medians and the median difference."""
    parser = argparse.ArgumentParser(description="Times a training step of a tiny network.")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/raw")
    parser.add_argument("--repeats", type=int, default=3, help="how many turns")
    options = parser.parse_args()
    MNIST(str(options.root), download=True)
    os.environ["WANDB_MODE"] = "offline"
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    pairs = []
    plain(options.root)  # warms up
    for turn in range(options.repeats):
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            pairs.append((plain(options.root), ours(options.root.absolute())))
        print(f"turn {turn + 1}: plain {pairs[-1][0]:.3f} ms, ours {pairs[-1][1]:.3f} ms", flush=True)
    more = [own - other for other, own in pairs]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"ours takes {statistics.median(more):.3f} ms longer ({min(more):.3f} to {max(more):.3f})")


if __name__ == "__main__":
    run()
