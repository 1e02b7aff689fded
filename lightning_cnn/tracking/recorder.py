"""Keeps `run.json` up to date while the trainer works."""

import platform
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn

from lightning_cnn.errors import StorageError
from lightning_cnn.evaluation.directions import Direction
from lightning_cnn.resume.checkpoints import BestCheckpoint
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.loggers import log_best
from lightning_cnn.tracking.record import METRICS
from lightning_cnn.tracking.run import RunFolder


class RunRecorder(Checkpoint):
    """Writes device, parameters, metrics and the best checkpoint into the run's record, on rank zero.

    It derives from `Checkpoint` because Lightning runs these last: the checkpoint of an epoch is then written already.

    Args:
        run: The run folder with its record.
        best: The callback that keeps the best checkpoint.
        directions: The metrics whose best value W&B's summary has, and which way each is better.
    """

    def __init__(self, run: RunFolder, best: BestCheckpoint, directions: Mapping[str, Direction]) -> None:
        self.run = run
        self.best = best
        self.directions = directions

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records what it runs on."""
        if trainer.is_global_zero:
            record = self.run.record
            record.device = device_name(trainer)
            record.parameters = sum(parameter.numel() for parameter in pl_module.parameters())
            self.run.save()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the record of a run that goes on to where the run is: it may have been ahead of its checkpoint."""
        if trainer.is_global_zero:
            self.run.record.epochs = trainer.current_epoch
            self._record_best()
            self.run.save()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends a training whose run is no longer its own."""
        if self.run.lost:
            raise StorageError(
                f"{self.run.folder} was deleted, or another process took over the run after five minutes without a "
                "heartbeat from this one"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records a new best checkpoint as soon as it is written."""
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING:
            before = self.run.record.best
            self._record_best()
            if self.run.record.best != before:
                self.run.save()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records a finished epoch and flushes the loggers."""
        if not trainer.is_global_zero:
            return
        record = self.run.record
        record.epochs = trainer.current_epoch + 1
        record.last = self.best.last_metrics(trainer)
        self._record_best()
        for logger in trainer.loggers:
            logger.save()
        self.run.save()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the best values of the whole run into W&B's summary."""
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            curves = read_history(self.run.folder / METRICS, [*self.directions])
            log_best(trainer.loggers, curves, self.directions, self.best.best_metrics)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the test."""
        if trainer.is_global_zero:
            self.run.record.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.run.save()

    def _record_best(self) -> None:
        """Records the best checkpoint and its metrics; without one, the metrics are those of the last epoch."""
        record = self.run.record
        record.best = self.best.summary()
        # version 0.1 did not keep the metrics of the best
        record.metrics = dict((self.best.best_metrics or record.metrics) if record.best else record.last)


def device_name(trainer: Trainer) -> str:
    """What the trainer computes on, such as `cpu (x86_64)` or `2 x NVIDIA H200`."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"
