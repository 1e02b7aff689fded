"""Times LeNet5 on MNIST: the usual Lightning way, Keras, plain loops, and ours with all default tracking on.

    uv run experiments/benchmarks/mnist_epoch.py --root data --repeats 3
    uv run experiments/benchmarks/mnist_epoch.py --root data --keras KERAS_ENVIRONMENT/bin/python

All ways train the same network with SGD. They take turns, so that a noisy machine treats them alike; the ratios are
taken within each turn and their median is printed. What is timed is an epoch of `--images` images after a warm-up; the
seconds that are printed are those of 60,000. Keras needs an environment of its own with keras and tensorflow.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import pytorch_lightning as pl
import timm
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

import lightning_cnn.architectures  # noqa: F401  registers lenet5
from lightning_cnn.cli import main
from lightning_cnn.tracking.throughput import Throughput

ALL = 60_000
# what the experiment mnist_lenet5 with its 50 epochs chooses by itself; the epochs here are too few
LONG = ("--model.compile", "true", "--model.channels_last", "true")
BF16 = ("--trainer.precision", "bf16-mixed")
KERAS = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy
from keras import layers
size, images, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
read = lambda name, offset: numpy.fromfile(f"{folder}/train-{name}-ubyte", numpy.uint8, offset=offset)
pixels = read("images-idx3", 16).reshape(-1, 28, 28, 1)[:images].astype("float32") / 255
labels = read("labels-idx1", 8)[:images]
network = keras.Sequential([
    layers.Input((28, 28, 1)), layers.Conv2D(6, 5, activation="relu"), layers.AveragePooling2D(2, strides=1),
    layers.Conv2D(16, 5, activation="tanh"), layers.AveragePooling2D(2), layers.Conv2D(120, 5, activation="tanh"),
    layers.Flatten(), layers.Dense(84, activation="tanh"), layers.Dense(10, activation="softmax"),
])
assert network.count_params() == 303_626
network.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
network.fit(pixels[:2000], labels[:2000], size, verbose=0)
start = time.perf_counter()
network.fit(pixels, labels, size, verbose=0)
print(time.perf_counter() - start)
"""


class UsualModule(pl.LightningModule):
    """What a tutorial writes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = timm.create_model("lenet5")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch, logged."""
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def usual(root: Path, batch_size: int, images: int) -> float:
    """Seconds of an epoch with torchvision's data set, ToTensor, and a loader with two workers."""
    data = Subset(MNIST(str(root), transform=ToTensor()), range(images))
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=1, logger=CSVLogger(folder), callbacks=[Throughput()], default_root_dir=folder,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(UsualModule(), loader)
    return images / float(trainer.callback_metrics["train/images_per_s"])


def keras(python: Path, root: Path, batch_size: int, images: int) -> float:
    """Seconds of an epoch in Keras on arrays in memory."""
    command = [str(python), "-c", KERAS, str(batch_size), str(images), str(root / "MNIST" / "raw")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def plain(root: Path, batch_size: int, images: int, fast: bool = False, bf16: bool = False) -> float:
    """Seconds of an epoch in a plain loop over tensors in memory; with `fast` compiled, with the channels last."""
    data = MNIST(str(root))
    pixels, labels = data.data[:images].unsqueeze(1), data.targets[:images]
    network = timm.create_model("lenet5")
    layout = torch.channels_last if fast else torch.contiguous_format
    network.to(memory_format=layout)
    if fast:
        network.compile(dynamic=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, fused=True)
    start, whole = 0.0, images // batch_size
    for epoch in range(2):  # the first, of 20 steps, warms up
        order = torch.randperm(images)
        start = time.perf_counter()
        for step, index in enumerate(order.split(batch_size)[:whole]):
            if epoch == 0 and step == 20:
                break
            batch = (pixels[index].float() / 255).contiguous(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(network(batch), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def ours(root: Path, batch_size: int, images: int, *options: str) -> float:
    """Seconds of the second epoch of `lightning-cnn fit` with W&B offline, TensorBoard, CSV and all callbacks."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "fit", "--data", "MNIST", "--data.root", str(root), "--data.batch_size", str(batch_size),
            "--data.normalize", "unit", "--data.val_fraction", "0.0001", "--model.architecture", "lenet5",
            "--model.optimizer", "momentum", "--model.momentum", "0", "--model.lr", "0.01",
            "--trainer.max_epochs", "2", "--trainer.limit_train_batches", str(images // batch_size),
            "--runs_dir", folder, *options,
        ]  # fmt: skip
        if main(words) != 0:
            raise SystemExit("the training failed")
        (record,) = Path(folder).glob("*/*/run.json")
        return images / float(json.loads(record.read_text())["metrics"]["train/images_per_s"])


def ways_of(root: Path, size: int, images: int, python: Path | None) -> dict[str, Callable[[], float]]:
    """The ways with batches of a size, by name."""
    found: dict[str, Callable[[], float]] = {
        "usual Lightning": lambda: usual(root, size, images),
        "plain loop": lambda: plain(root, size, images),
        "plain loop, compiled": lambda: plain(root, size, images, fast=True),
        "plain loop, compiled, bfloat16": lambda: plain(root, size, images, fast=True, bf16=True),
        "ours": lambda: ours(root, size, images, *LONG),
        "ours, two epochs alone": lambda: ours(root, size, images),
        "ours, bfloat16": lambda: ours(root, size, images, *LONG, *BF16),
    }
    if python is not None:
        found["Keras"] = lambda: keras(python, root, size, images)
    return {f"batch {size}, {name}": way for name, way in found.items()}


def rivals(names: list[str]) -> list[tuple[str, str]]:
    """Which ways are compared."""
    pairs = [("ours", ""), ("ours, bfloat16", ", bfloat16"), ("ours, two epochs alone", "")]
    found = []
    for size in (32, 256):
        for way, precision in pairs:
            for other in ("usual Lightning", "Keras", "plain loop", f"plain loop, compiled{precision}"):
                found.append((f"batch {size}, {way}", f"batch {size}, {other}"))
    return [pair for pair in found if set(pair) <= set(names)]


def run() -> None:
    """Runs all ways in turns and prints medians and ratios."""
    parser = argparse.ArgumentParser(description="Times one MNIST epoch of LeNet5.")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/raw")
    parser.add_argument("--repeats", type=int, default=3, help="how many turns")
    parser.add_argument("--images", type=int, default=ALL, help="how many images an epoch has")
    parser.add_argument("--keras", type=Path, help="the Python of an environment with keras and tensorflow")
    options = parser.parse_args()
    MNIST(str(options.root), download=True)
    os.environ["WANDB_MODE"] = "offline"
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    root = options.root.absolute()
    ways = {name: way for size in (32, 256) for name, way in ways_of(root, size, options.images, options.keras).items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.repeats):
        for name, way in ways.items():
            torch.compiler.reset()
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                seconds[name].append(way() * ALL / options.images)
            print(f"turn {turn + 1}  {name:<42} {seconds[name][-1]:6.1f} s", flush=True)
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}, Lightning {version('pytorch-lightning')}\n")
    for name, values in seconds.items():
        print(f"{name:<42} {statistics.median(values):6.1f} s   ({min(values):.1f} to {max(values):.1f})")
    print()
    for above, below in rivals([*ways]):
        ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
        print(f"{above} / {below}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    run()
