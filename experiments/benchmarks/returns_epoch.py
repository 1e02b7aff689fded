"""Times an epoch of the book's network on monthly returns: plain loops, the usual Lightning way, and ours.

    uv run experiments/benchmarks/returns_epoch.py --repeats 3
    uv run experiments/benchmarks/returns_epoch.py --prices prices.parquet

Without a price file the rows are drawn (SyntheticReturns, about as many as the book's 206,587). All ways make the same
steps of Adam on the same number of rows; ours with all default tracking on. The network is the book's in torch's own
layers, or `returns_cnn`, which computes the same in less time: ours, and one plain loop. The ways take turns, so that a
noisy machine treats them alike; the ratios are taken within each turn and their median is printed. The time of an epoch
runs from its start to the end of its last step; a warm-up comes before it. At the end: 20 epochs with small batches and
with large ones, the seconds from first to last step of the epochs and those from the first import to the printed
result, and the test AUC of both.
"""

import argparse
import csv
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.architectures.returns import returns_cnn
from lightning_cnn.cli import main
from lightning_cnn.datamodules import MonthlyReturns, SyntheticReturns
from lightning_cnn.tracking.throughput import Throughput

BATCH, LARGE = 32, 1024
DRAWN: dict[str, Any] = {"stocks": 2489, "months": 124, "lags": 24, "val_months": 1}
WARM_UP = 50  # steps
GOAL = ("plain loop", "plain loop, our network")  # in these times
Rows = tuple[Tensor, Tensor]


class UsualModule(pl.LightningModule):
    """What a tutorial writes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = layers()

    def training_step(self, batch: Rows, batch_idx: int) -> Tensor:
        """Cross-entropy of a batch, logged."""
        loss = loss_of(self.network, *batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def layers() -> nn.Module:
    """The book's network as one writes it down."""
    convolution = [nn.Conv1d(1, 32, 3), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(544, 1))


def loss_of(network: nn.Module, windows: Tensor, outcomes: Tensor) -> Tensor:
    """Cross-entropy of a batch."""
    return F.binary_cross_entropy_with_logits(network(windows).squeeze(1), (outcomes > 0).float())


def plain(rows: Rows, network: nn.Module, loader: bool = False, fused: bool = True) -> float:
    """Seconds of an epoch in a plain loop: over tensors in memory, or a DataLoader that collates rows."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=fused or None)
    start = 0.0
    for epoch in range(2):
        start = time.perf_counter()
        if loader:
            batches: Any = DataLoader(TensorDataset(*rows), BATCH, shuffle=True)
        else:
            order = torch.randperm(len(rows[0])).split(BATCH)
            batches = ((rows[0][index], rows[1][index]) for index in order)
        for step, batch in enumerate(batches):
            if epoch == 0 and step == WARM_UP:
                break
            loss = loss_of(network, *batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def usual(rows: Rows) -> float:
    """Seconds of the second epoch in Lightning, with a TensorDataset and a DataLoader that collates rows."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=2, logger=CSVLogger(folder), callbacks=[Throughput()], default_root_dir=folder,
            enable_checkpointing=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(UsualModule(), DataLoader(TensorDataset(*rows), BATCH, shuffle=True))
    return len(rows[0]) / float(trainer.callback_metrics["train/images_per_s"])


def ours(rows: Rows, data: list[str], *options: str) -> float:
    """Seconds of the second epoch of `lightning-cnn fit` with W&B offline, TensorBoard, CSV and all callbacks."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["fit", *data, *model(), "--trainer.max_epochs", "2", "--runs_dir", folder, *options]
        if main(words) != 0:
            raise SystemExit("the training failed")
        (record,) = Path(folder).glob("*/*/run.json")
        return len(rows[0]) / float(json.loads(record.read_text())["metrics"]["train/images_per_s"])


def model(batch_size: int = BATCH, lr: float = 1e-3) -> list[str]:
    """The words for the book's network and optimiser."""
    return [
        "--model.architecture", "returns_cnn", "--model.optimizer", "adam", "--model.lr", str(lr),
        "--data.batch_size", str(batch_size),
    ]  # fmt: skip


def whole_run(data: list[str], rows: int, batch_size: int, lr: float) -> tuple[float, float, float]:
    """A `lightning-cnn train` of 20 epochs: seconds of its steps, and in all with start-up, test, figures; test AUC."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", *data, *model(batch_size, lr), "--trainer.max_epochs", "20", "--runs_dir", folder]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lightning_cnn", *words], check=True, capture_output=True)
        seconds = time.perf_counter() - start
        (record,) = Path(folder).glob("*/*/run.json")
        with (record.parent / "metrics.csv").open() as file:
            speeds = [float(row["train/images_per_s"]) for row in csv.DictReader(file) if row["train/images_per_s"]]
        auc = json.loads(record.read_text())["metrics"]["test/auc"]
        return sum(rows / speed for speed in speeds), seconds, auc


def run() -> None:
    """Runs all ways in turns and prints medians and ratios."""
    parser = argparse.ArgumentParser(description="Times an epoch of the book's network on monthly returns.")
    parser.add_argument("--prices", type=Path, help="price file; default: drawn returns")
    parser.add_argument("--stocks", type=int, default=DRAWN["stocks"], help="of the drawn returns")
    parser.add_argument("--repeats", type=int, default=3, help="how many turns")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--short", action="store_true", help="without the 20 epochs")
    options = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.prices:
        data: MonthlyReturns = MonthlyReturns(str(options.prices.absolute()))
        words = ["--data", "MonthlyReturns", "--data.prices", str(options.prices.absolute())]
    else:
        drawn = {**DRAWN, "stocks": options.stocks}
        data = SyntheticReturns(**drawn)
        words = ["--data", "SyntheticReturns"] + [w for n, v in drawn.items() for w in (f"--data.{n}", str(v))]
    with redirect_stdout(StringIO()):
        data.setup("fit")
    windows, outcomes, _ = data.arrays("train")
    rows = (torch.from_numpy(windows), torch.from_numpy(outcomes))
    ways: dict[str, Callable[[], float]] = {
        "plain loop": lambda: plain(rows, layers()),
        "plain loop, Adam not fused": lambda: plain(rows, layers(), fused=False),
        "plain loop, our network": lambda: plain(rows, returns_cnn()),
        "plain loop, DataLoader": lambda: plain(rows, layers(), loader=True),
        "usual Lightning, DataLoader": lambda: usual(rows),
        "ours": lambda: ours(rows, words),
    }
    if options.compile:
        ways["plain loop, compiled"] = lambda: plain(rows, torch.compile(layers()))  # type: ignore[arg-type]
        ways["ours, compiled"] = lambda: ours(rows, words, "--model.compile", "true")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    print(f"{len(rows[0]):,} windows of {rows[0].shape[2]}, batches of {BATCH}", flush=True)
    for turn in range(options.repeats):
        for name, way in ways.items():
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                seconds[name].append(way())
            print(f"turn {turn + 1}  {name:<28} {seconds[name][-1]:6.2f} s", flush=True)
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}, Lightning {version('pytorch-lightning')}\n")
    for name, values in seconds.items():
        print(f"{name:<28} {statistics.median(values):6.2f} s   ({min(values):.2f} to {max(values):.2f})")
    print()
    for name in [name for name in ways if name.startswith("ours")]:
        for below in ("plain loop", "plain loop, our network", "plain loop, DataLoader", "usual Lightning, DataLoader"):
            ratios = [a / b for a, b in zip(seconds[name], seconds[below], strict=True)]
            aim = "   goal: at most 1.3" if name == "ours" and below in GOAL else ""
            print(f"{name} / {below}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}){aim}")
    if not options.short:
        print("\n20 epochs:")
        for batch_size, lr in ((BATCH, 1e-3), (LARGE, 4e-3)):
            learned, took, auc = whole_run(words, len(rows[0]), batch_size, lr)
            in_all = f"{took:6.1f} s from the first import to the printed result"
            print(f"batch {batch_size:>5}, lr {lr:g}: steps {learned:6.1f} s, {in_all}, test AUC {auc:.4f}", flush=True)


if __name__ == "__main__":
    run()
