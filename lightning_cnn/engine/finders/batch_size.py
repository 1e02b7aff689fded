"""Finds the largest batch that fits into memory before the training begins."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.memory import garbage_collection_cuda, is_oom_error

from lightning_cnn.datamodules.images.augmentation import Augmentation
from lightning_cnn.engine.finders.base import Attempt, Finder, Found
from lightning_cnn.errors import UserError, check
from lightning_cnn.tracking.throughput import count_images


@dataclass(eq=False)
class BatchSizeFinder(Finder):
    """Chooses `data.batch_size`: doubles it until a few steps no longer fit into memory.

    The search starts at `init_val` and ends when a size no longer fits, at `max_val`, after `max_trials`, or when one
    batch holds all training images; on a CPU, memory is rarely the limit. It supports one device.

    The training is then the same as with `data.batch_size FOUND`. The value is written to `config.yaml` and
    `run.json`. A resumed run keeps its batch size.

    Args:
        init_val: The first size.
        max_val: The largest size.
        max_trials: Sizes to try at most.
        steps_per_trial: Training steps with each.
        margin: Share of a GPU's memory that must stay free.

    Raises:
        UserError: If a value lies outside its range.
    """

    setting = "data.batch_size"

    init_val: int = 2
    max_val: int = 8192
    max_trials: int = 25
    steps_per_trial: int = 3
    margin: float = 0.05

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name in ("init_val", "max_trials", "steps_per_trial"):
            check(f"trainer.callbacks.{name}", getattr(self, name), least=1)
        check("trainer.callbacks.max_val", self.max_val, least=self.init_val)
        check("trainer.callbacks.margin", self.margin, least=0, below=1)

    def find(self, attempt: Attempt, present: Any) -> Found:
        """Tries sizes, and takes the largest that fits.

        Args:
            attempt: A training to try the sizes on.
            present: Not used.

        Raises:
            UserError: If not even the first size fits, or there are several processes.
        """
        sizes = [self.init_val * 2**trial for trial in range(self.max_trials)]
        fits, bound = 0, "`trainer.callbacks.max_trials`"
        for size in sizes:
            if size > self.max_val:
                bound = f"`trainer.callbacks.max_val` {self.max_val}"
                break
            count = self._images(attempt, size)
            if count is None:
                bound = f"{size} do not fit into memory"
                break
            fits = size
            if count:
                fits, bound = min(size, count), f"one batch holds all {count} training images"
                break
        if not fits:
            raise UserError(
                f"BatchSizeFinder: {self.init_val} images do not fit into memory; lower `trainer.callbacks.init_val` "
                "or use a smaller network"
            )
        return Found(fits, f"the largest size tried; {bound}")

    def _images(self, attempt: Attempt, size: int) -> int | None:
        """Tries a size; None where it does not fit, else the number of training images if one batch holds all, or 0."""
        first = _FirstBatch()
        attempt.data.batch_size = size  # type: ignore[attr-defined]
        attempt.data.hparams["batch_size"] = size  # from which others make their loaders
        augmentation = getattr(attempt.data, "augmentation", None)
        if isinstance(augmentation, Augmentation):  # the images that follow the small ones must fit, too
            attempt.data.augmentation = replace(augmentation, small_epochs=0)  # type: ignore[attr-defined]
        whole = {"limit_train_batches": None, "overfit_batches": 0.0, "limit_val_batches": 0}
        trainer = attempt.trainer(callbacks=[first], max_steps=self.steps_per_trial, **whole)
        if trainer.world_size > 1:
            raise UserError(
                "BatchSizeFinder supports one device; find the size with `trainer.devices` 1, then set "
                "`data.batch_size` to that size times the number of devices"
            )
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1 - self.margin, device)
        try:
            attempt.fit(trainer)
        except RuntimeError as error:
            if not is_oom_error(error):
                raise
            return None
        finally:
            attempt.model.zero_grad(set_to_none=True)
            if device.type == "cuda":
                garbage_collection_cuda()
                torch.cuda.set_per_process_memory_fraction(1.0, device)
        return first.images if trainer.num_training_batches == 1 else 0


class _FirstBatch(Callback):
    """Counts the images of the first batch."""

    images = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Counts them."""
        self.images = self.images or count_images(batch)
