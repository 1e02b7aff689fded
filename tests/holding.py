"""A training that waits at a given batch for what the test does to it: a signal, or the end."""

import os
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.interruption import received

SECONDS = 240


class Hold(Callback):
    """Waits behind a batch, once in each start.

    Args:
        batches: Behind which batch, counted from the start of the training, the first start waits, the second, and so
            on; further ones don't.
        folder: Where a file `<start>-<rank>` with its number says that a process waits.
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
        sign = self.folder / f"{start}-{trainer.global_rank}"
        if sign.exists():
            return
        sign.write_text(str(os.getpid()))
        end = time.monotonic() + SECONDS
        while not received() and time.monotonic() < end:
            time.sleep(0.05)
