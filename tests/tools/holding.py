"""A training that waits at a given batch for what the test does to it: a signal, or the end."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.resume.signals import received

SECONDS = 240
# all that draws or remembers: order, dropout, augmentation, gathered gradients, averaged weights, a schedule
TRAINING = [
    *["--data", "Digits", "--data.batch_size", "64", "--model.architecture", "ffnn", "--trainer.accelerator", "cpu"],
    *["--data.augment.shift", "0.1", "--data.augment.mixup", "0.2", "--trainer.accumulate_grad_batches", "2"],
    *["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.9", "--model.schedule", "cosine"],
    *["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "2", "--trainer.enable_model_summary", "false"],
]


class Hold(Callback):
    """Waits behind a batch, once in each start.

    Args:
        batches: Behind which batch, counted from the start of the training, the first start waits, the second, and so
            on; further ones don't.
        folder: Where a file `<start>-<number of the process>` says that a process waits; its id stands there.
    """

    def __init__(self, batches: list[int], folder: str) -> None:
        self.batches = batches
        self.folder = Path(folder)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Waits, if it is this batch."""
        names = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
        start = sum(int(os.environ.get(name, 0)) for name in names)
        done: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        if self.batches[start : start + 1] != [done.processed]:
            return
        number = trainer.global_rank + int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))  # those of an array are alone
        sign = self.folder / f"{start}-{number}"
        if sign.exists():
            return
        sign.write_text(str(os.getpid()))
        end = time.monotonic() + SECONDS
        while not received() and time.monotonic() < end:
            time.sleep(0.05)


def hold(*batches: int) -> list[str]:
    """The options for a `Hold`, whose folder is `held`."""
    Path("held").mkdir(exist_ok=True)
    held = ["--trainer.callbacks+=holding.Hold", "--trainer.callbacks.batches", str([*batches])]
    return [*held, "--trainer.callbacks.folder", str(Path("held").absolute())]


def held(start: int, processes: int) -> Callable[[], bool]:
    """Asks whether so many processes wait."""
    return lambda: all(Path(f"held/{start}-{number}").exists() for number in range(processes))


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs end with the same weights, bit for bit."""
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (one, other)
    )
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metrics(folder: Path) -> list[list[str]]:
    """The rows of metrics.csv without those that measure time."""
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    kept = [column for column, name in enumerate(header) if not any(word in name for word in ("per_s", "memory"))]
    return [[row[column] for column in kept] for row in [header, *rows]]
