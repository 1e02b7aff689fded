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

    _sums: dict[str, Tensor] | None = None  # by name, each without dimensions
    _images = 0  # how many they are of
    _resumed: dict[str, Any] | None = None

    def add_up(self, sums: dict[str, Tensor], images: int) -> None:
        """Adds a batch.

        Args:
            sums: Sums over the images of the batch, each without dimensions.
            images: How many images these are.
        """
        if self._sums is None:
            self._sums = {name: torch.zeros((), device=value.device) for name, value in sums.items()}
        for name, value in sums.items():
            self._sums[name].add_(value.detach())
        self._images += images

    def on_train_epoch_start(self) -> None:
        """Starts the sums of the epoch, or goes on with those of the checkpoint."""
        self._sums, self._images = None, 0
        if self._resumed is not None:
            rows: Tensor = self._resumed["sums"].to(self.device)
            if len(rows) == self.trainer.world_size:
                row = rows[self.trainer.global_rank]
            else:  # other processes than before: their sum is still right
                row = rows.sum(0) if self.trainer.is_global_zero else torch.zeros_like(rows[0])
            self._sums, self._images = dict(zip(self._resumed["names"], row[:-1].clone(), strict=True)), int(row[-1])
            self._resumed = None

    def on_train_epoch_end(self) -> None:
        """Logs the means over the epoch and all processes."""
        images = max(1, self._images)
        for name, value in (self._sums or {}).items():
            self.log(f"train/{name}", value / images, batch_size=images, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of an epoch that is not at its end; all processes must call it."""
        epoch = self.trainer.fit_loop.epoch_progress.current
        if epoch.started > epoch.processed and self._sums is not None:  # type: ignore[attr-defined]
            own = torch.stack([*self._sums.values(), torch.full((), float(self._images), device=self.device)])
            rows = [torch.zeros_like(own) for _ in range(self.trainer.world_size)]
            if len(rows) > 1:
                distributed.all_gather(rows, own)
            else:
                rows = [own]
            checkpoint[SAVED] = {"names": list(self._sums), "sums": torch.stack(rows).cpu()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the sums of an epoch that was not at its end."""
        self._resumed = checkpoint.get(SAVED)
