"""Times one epoch of LeNet5 on MNIST: the usual Lightning way, a plain loop, and ours with all default tracking on.

    uv run experiments/benchmarks/mnist_epoch.py --root data --repeats 3

All ways train the same network with SGD on 60,000 images (ours on all but the six that its smallest validation part
takes). They take turns, so that a noisy machine treats them alike; the ratios are taken within each turn and their
median is printed. The time of an epoch runs from its start to the end of its last step; a warm-up comes before it.
"""

import argparse
import json
import logging
import os
import statistics
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
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

import lightning_cnn.architectures  # noqa: F401  registers lenet5
from lightning_cnn.cli import main
from lightning_cnn.tracking.throughput import Throughput

IMAGES = 60_000
FASTEST = ("--trainer.precision", "bf16-mixed", "--model.compile", "true", "--model.channels_last", "true")


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


def usual(root: Path, batch_size: int) -> float:
    """Seconds of an epoch with torchvision's data set, ToTensor, and a loader with two workers."""
    loader = DataLoader(MNIST(str(root), transform=ToTensor()), batch_size, shuffle=True, num_workers=2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=1, logger=CSVLogger(folder), callbacks=[Throughput()], default_root_dir=folder,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(UsualModule(), loader)
    return IMAGES / float(trainer.callback_metrics["train/images_per_s"])


def plain(root: Path, batch_size: int) -> float:
    """Seconds of an epoch in a plain loop over tensors in memory."""
    data = MNIST(str(root))
    images, labels = data.data.unsqueeze(1), data.targets
    network = timm.create_model("lenet5")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    start = 0.0
    for epoch in range(2):  # the first, of 20 steps, warms up
        order = torch.randperm(len(images))
        start = time.perf_counter()
        for step, index in enumerate(order.split(batch_size)):
            if epoch == 0 and step == 20:
                break
            loss = F.cross_entropy(network(images[index].float() / 255), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def ours(root: Path, batch_size: int, *options: str) -> float:
    """Seconds of the second epoch of `lightning-cnn fit` with W&B offline, TensorBoard, CSV and all callbacks."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "fit", "--data", "MNIST", "--data.root", str(root), "--data.batch_size", str(batch_size),
            "--data.normalize", "unit", "--data.val_fraction", "0.0001", "--model.architecture", "lenet5",
            "--model.optimizer", "momentum", "--model.momentum", "0", "--model.lr", "0.01",
            "--trainer.max_epochs", "2", "--runs_dir", folder, *options,
        ]  # fmt: skip
        if main(words) != 0:
            raise SystemExit("the training failed")
        (record,) = Path(folder).glob("*/*/run.json")
        return IMAGES / float(json.loads(record.read_text())["metrics"]["train/images_per_s"])


WAYS: dict[str, Callable[[Path], float]] = {
    "usual Lightning, batch 32": lambda root: usual(root, 32),
    "plain loop, batch 32": lambda root: plain(root, 32),
    "ours, batch 32": lambda root: ours(root, 32),
    "ours fastest, batch 32": lambda root: ours(root, 32, *FASTEST),
    "usual Lightning, batch 256": lambda root: usual(root, 256),
    "plain loop, batch 256": lambda root: plain(root, 256),
    "ours, batch 256": lambda root: ours(root, 256),
    "ours fastest, batch 256": lambda root: ours(root, 256, *FASTEST),
}
RATIOS = (
    ("ours, batch 32", "usual Lightning, batch 32", 0.65),
    ("ours fastest, batch 32", "usual Lightning, batch 32", 0.65),
    ("ours, batch 32", "plain loop, batch 32", None),
    ("ours, batch 256", "usual Lightning, batch 256", None),
    ("ours fastest, batch 256", "usual Lightning, batch 256", 0.45),
    ("ours, batch 256", "plain loop, batch 256", 1.25),
)


def run() -> None:
    """Runs all ways in turns and prints medians and ratios."""
    parser = argparse.ArgumentParser(description="Times one MNIST epoch of LeNet5.")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/raw")
    parser.add_argument("--repeats", type=int, default=3, help="how many turns")
    options = parser.parse_args()
    MNIST(str(options.root), download=True)
    os.environ["WANDB_MODE"] = "offline"
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(options.repeats):
        for name, way in WAYS.items():
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                seconds[name].append(way(options.root.absolute()))
            print(f"turn {turn + 1}  {name:<28} {seconds[name][-1]:6.1f} s", flush=True)
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}, Lightning {version('pytorch-lightning')}\n")
    for name, values in seconds.items():
        print(f"{name:<28} {statistics.median(values):6.1f} s   ({min(values):.1f} to {max(values):.1f})")
    print()
    for above, below, goal in RATIOS:
        ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
        aim = f"   goal: at most {goal}" if goal else ""
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{above} / {below}: {statistics.median(ratios):.2f} {spread}{aim}")


if __name__ == "__main__":
    run()
