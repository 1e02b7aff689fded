"""The progress bar."""

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

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

    def init_train_tqdm(self) -> Tqdm:
        """The bar of an epoch."""
        return self._bar("Epoch", leave=True)

    def init_validation_tqdm(self) -> Tqdm:
        """The bar of a validation."""
        return self._bar("Validating", leave=False)

    def init_test_tqdm(self) -> Tqdm:
        """The bar of a test."""
        return self._bar("Testing", leave=False)

    def init_predict_tqdm(self) -> Tqdm:
        """The bar of a prediction."""
        return self._bar("Predicting", leave=False)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Starts the bar of an epoch."""
        super().on_train_epoch_start(trainer, *args)
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the finished epoch; as a line of its own where the bar doesn't move."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_enabled and not self._moves:
            metrics = self.get_metrics(trainer, pl_module).items()
            line = Tqdm.format_meter(
                n=int(trainer.num_training_batches),
                total=int(trainer.num_training_batches),
                elapsed=time.monotonic() - self._start,
                ncols=120,
                prefix=f"Epoch {trainer.current_epoch}",
                postfix=", ".join(f"{name}={value:.3g}" for name, value in metrics if isinstance(value, float)),
                bar_format=self.BAR_FORMAT,
            )
            print(line, file=sys.stderr, flush=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics beside the bar, without the version number."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items

    def _bar(self, description: str, leave: bool) -> Tqdm:
        return Tqdm(
            desc=description,
            leave=leave,
            disable=self.is_disabled or not self._moves,
            dynamic_ncols=True,
            file=sys.stderr,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )
