"""What is kept of a run: the options of both checkpoints, and the callback that keeps best.ckpt."""

from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_cnn.errors import UserError
from lightning_cnn.resume.last_checkpoint import LastCheckpoint
from lightning_cnn.resume.lightning_loops import Place, set_place

Direction = Literal["min", "max"]


class Checkpoints:
    """What is kept of a run: the best epoch, which the test uses, and the last state, from which the run goes on.

    Args:
        monitor: Metric that selects the best checkpoint, of the training or validation data, never of the test.
        mode: `min` if lower values of the metric are better, `max` if higher; required only for metrics without a
            declared direction.
        every_n_steps: Optimizer steps after which the last state is also saved within an epoch; 0 for never.
        every_n_minutes: Minutes after which the last state is also saved within an epoch; 0 for never.

    Raises:
        UserError: If the metric is one of the test data or does not exist, or a number is negative.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Direction | None = None,
        every_n_steps: int = 0,
        every_n_minutes: float = 0.0,
    ) -> None:
        self.best = BestCheckpoint(monitor, mode)
        self.last = LastCheckpoint(every_n_steps)
        self.every_n_minutes = every_n_minutes


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights with the best value of a metric as `best.ckpt`; the test uses them.

    A metric that the validation logs is compared after each validation, also within an epoch; any other at the end of
    each epoch. So the checkpoint always holds the weights that its metrics were measured with.

    Args:
        monitor: The metric to watch; it must be one of the training or validation data, never of the test.
        mode: `min` if lower values of the metric are better, `max` if higher; required only for metrics without a
            declared direction, which the callback `Monitors` sets, or the module names (`Task.direction`).

    Raises:
        UserError: If the metric is one of the test data, or nothing says which way it is better.
    """

    def __init__(self, monitor: str = "val/loss", mode: Direction | None = None) -> None:
        if monitor.startswith("test"):
            raise UserError(
                f"`checkpoint.monitor` {monitor}: a test metric cannot select the checkpoint; use val/loss or val/acc"
            )
        self.best_epoch = self.best_step = 0
        self.best_metrics: dict[str, float] = {}
        self.follows = mode is None  # what the module declares, by `Monitors`
        self._place: Place | None = None
        self._before: dict[str, torch.Tensor] = {}
        self._validation: dict[str, float] = {}  # what the last validation has logged
        self._validated = -1  # steps before it
        self._of_validations: set[str] = set()
        self._is_of_run = False  # the checkpoint that the training begins with
        super().__init__(
            None, "best", monitor, mode=mode or "min", auto_insert_metric_name=False, enable_version_counter=False
        )

    on_train_batch_end = Callback.on_train_batch_end  # it saves by validations and epochs, not by steps

    def follow(self, mode: Direction) -> None:
        """Sets which way the metric is better, unless that was given."""
        if self.follows:
            self.follows = False
            self.mode, self.kth_value = mode, torch.tensor(float("inf" if mode == "min" else "-inf"))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a metric of which nothing says which way it is better; without `Monitors` it asks the module."""
        if self.follows and stage == "fit":
            direction = getattr(pl_module, "direction", lambda _: None)(self.monitor)
            if direction is None:
                raise UserError(
                    f"`checkpoint.monitor` {self.monitor}: unknown whether lower or higher is better; add "
                    "`checkpoint.mode` min or `checkpoint.mode` max"
                )
            self.follow(direction)
        super().setup(trainer, pl_module, stage)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes what was logged before the validation."""
        self._before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves a new best by a metric of the validation."""
        # Lightning's metrics are all that were ever logged: those of this validation are new tensors
        new = {name: value for name, value in trainer.callback_metrics.items() if value is not self._before.get(name)}
        self._validation, self._validated = {name: float(value) for name, value in new.items()}, trainer.global_step
        self._of_validations |= new.keys()
        if self.monitor in new:
            self._place = "before validation"  # a training that goes on from here begins with what it starts from
            self._save_on_train_epoch_end = False
            self._last_global_step_saved = -1  # also where there was no step since: gradients are gathered
            super().on_validation_end(trainer, pl_module)
            self._place = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves a new best by any other metric; adds the metrics of the epoch to those of its last weights."""
        if self.monitor in trainer.callback_metrics and self.monitor not in self._of_validations:
            self._save_on_train_epoch_end = True
            super().on_train_epoch_end(trainer, pl_module)
        if self.best_metrics and self._last_global_step_saved == trainer.global_step:
            self.best_metrics |= self._measured(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Makes a training that goes on from a new best repeat the validation first."""
        if self._place is not None:
            set_place(trainer, checkpoint, self._place)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self.best_epoch, self.best_step = trainer.current_epoch, trainer.global_step
        self.best_metrics = self._measured(trainer)
        super()._save_checkpoint(trainer, filepath)

    def summary(self) -> dict[str, Any]:
        """The best checkpoint, as the record of a run has it; empty where there is none."""
        if self.best_model_score is None or not self.best_model_path:
            return {}
        found = {"metric": self.monitor, "value": float(self.best_model_score), "epoch": self.best_epoch}
        return found | {"step": self.best_step, "checkpoint": "checkpoints/best.ckpt"}

    def last_metrics(self, trainer: Trainer) -> dict[str, float]:
        """The metrics of an epoch that ends, and those of the last validation."""
        metrics = trainer.callback_metrics.items()
        return {name: float(v) for name, v in metrics if name not in self._of_validations} | self._validation

    def _measured(self, trainer: Trainer) -> dict[str, float]:
        """The metrics of the weights as they are: those of the training only at the end of their epoch."""
        if self._place is not None:
            return self._validation
        stale = self._validation if self._validated != trainer.global_step else {}
        return {name: value for name, value in self.last_metrics(trainer).items() if name not in stale}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes whether the checkpoint is one of this run."""
        self._is_of_run = Path(str(trainer.ckpt_path)).resolve().parent == Path(str(self.dirpath)).resolve()

    def state_dict(self) -> dict[str, Any]:
        """The best value, the epoch and the steps it is of, and the other metrics of its weights."""
        own = {"best_epoch": self.best_epoch, "best_step": self.best_step, "best_metrics": self.best_metrics}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best value again, also where the run folder has been moved since.

        The best of another run is not this run's: a run that starts from the checkpoint of another looks for its own.
        """
        before, here = str(state_dict["dirpath"]), str(self.dirpath)
        if before != here:
            if not self._is_of_run or not (Path(here) / "best.ckpt").is_file():
                return
            texts = {name: value.replace(before, here) for name, value in state_dict.items() if isinstance(value, str)}
            kept = {path.replace(before, here): score for path, score in state_dict["best_k_models"].items()}
            state_dict = state_dict | texts | {"best_k_models": kept}
        self.best_epoch, self.best_step = state_dict.get("best_epoch", 0), state_dict.get("best_step", 0)
        self.best_metrics = state_dict.get("best_metrics", {})
        super().load_state_dict(state_dict)
