"""The progress bar."""

import math
import sys
import time
from functools import partialmethod
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from lightning_cnn.notes import say

NEVER = 10**9


class ProgressBar(TQDMProgressBar):
    """A bar for each epoch, with rate, time left and the latest metrics.

    In a file or a pipe, where a moving bar would fill pages, each finished epoch leaves one line.
    """

    def __init__(self) -> None:
        self._moves = sys.stderr.isatty()
        self._start = 0.0
        super().__init__(refresh_rate=10 if self._moves else NEVER, leave=True)

    def init_sanity_tqdm(self) -> Tqdm:
        """The bar of the sanity check: none."""
        return Tqdm(disable=True)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Starts the bar of an epoch."""
        super().on_train_epoch_start(trainer, *args)
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the finished epoch; as a line of its own where the bar doesn't move."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_enabled and not self._moves:
            metrics, batches = self.get_metrics(trainer, pl_module).items(), trainer.num_training_batches
            total = None if math.isinf(batches) else int(batches)  # data without a length
            about = {
                "prefix": f"Epoch {trainer.current_epoch}",
                "postfix": ", ".join(f"{name}={value:.3g}" for name, value in metrics if isinstance(value, float)),
                "bar_format": self.BAR_FORMAT,
            }
            done, seconds = trainer.fit_loop.batch_idx + 1, time.monotonic() - self._start
            say(Tqdm.format_meter(done, total, seconds, 120, **about), to_stderr=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics beside the bar, without the version number."""
        return {name: item for name, item in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def _bar(self, description: str, leave: bool = False) -> Tqdm:
        usual = {"dynamic_ncols": True, "file": sys.stderr, "smoothing": 0, "bar_format": self.BAR_FORMAT}
        return Tqdm(desc=description, leave=leave, disable=self.is_disabled or not self._moves, **usual)

    init_train_tqdm = partialmethod(_bar, "Epoch", leave=True)
    init_validation_tqdm = partialmethod(_bar, "Validating")
    init_test_tqdm = partialmethod(_bar, "Testing")
    init_predict_tqdm = partialmethod(_bar, "Predicting")
