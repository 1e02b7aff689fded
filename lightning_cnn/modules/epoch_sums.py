"""The means of a training epoch: what all modules have in common that sum them themselves."""

from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, distributed

from lightning_cnn.evaluation.directions import Better

SAVED = "epoch_sums"  # in a checkpoint


class EpochSums(LightningModule):
    """A module that sums values over the images of an epoch and logs their means as `train/<name>`.

    Three calls of Lightning's `log` a step would take a tenth of a small network's epoch. And a checkpoint from the
    middle of an epoch has these sums, those of each process, so that a run that goes on from it loses nothing.
    """

    # every metric and which way it is better; a subclass adds its own
    better: ClassVar[Better] = {"loss": "min"}

    _names: tuple[str, ...] = ()
    _sums: Tensor | None = None  # of each name, and the number of images
    _resumed: dict[str, Any] | None = None

    def add_up(self, sums: dict[str, Tensor], images: int) -> None:
        """Adds a batch.

        Args:
            sums: Sums over the images of the batch, each without dimensions.
            images: How many images these are.
        """
        values = [value.detach().float() for value in sums.values()]
        found = torch.stack([*values, values[0].new_tensor(images)])
        self._names = tuple(sums)
        self._sums = found if self._sums is None else self._sums + found

    def on_train_epoch_start(self) -> None:
        """Starts the sums of the epoch, or goes on with those of the checkpoint."""
        self._sums = None
        if self._resumed is not None:
            rows: Tensor = self._resumed["sums"].to(self.device)
            self._names = tuple(self._resumed["names"])
            if len(rows) == self.trainer.world_size:
                self._sums = rows[self.trainer.global_rank]
            else:  # other processes than before: their sum is still right
                self._sums = rows.sum(0) if self.trainer.is_global_zero else torch.zeros_like(rows[0])
            self._resumed = None

    def on_train_epoch_end(self) -> None:
        """Logs the means over the epoch and all processes."""
        if self._sums is None:
            return
        *sums, images = self._sums
        for name, value in zip(self._names, sums, strict=True):
            mean = value / images.clamp(min=1)
            self.log(f"train/{name}", mean, batch_size=max(1, int(images)), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of an epoch that is not at its end; all processes must call it."""
        epoch = self.trainer.fit_loop.epoch_progress.current
        if epoch.started > epoch.processed and self._sums is not None:  # type: ignore[attr-defined]
            rows = [torch.zeros_like(self._sums) for _ in range(self.trainer.world_size)]
            if len(rows) > 1:
                distributed.all_gather(rows, self._sums)
            else:
                rows = [self._sums]
            checkpoint[SAVED] = {"names": list(self._names), "sums": torch.stack(rows).cpu()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the sums of an epoch that was not at its end."""
        self._resumed = checkpoint.get(SAVED)
