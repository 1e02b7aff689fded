"""best.ckpt: the weights that were best by a metric."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_cnn.callbacks.last_checkpoint import Place, set_place
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.directions import Direction, declared, direction_of


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights with the best value of a metric as `best.ckpt`; the test uses them.

    A metric of the validation, `val/...`, is compared after each validation, also within an epoch; any other at the end
    of each epoch. So the checkpoint always holds the weights that its metrics were measured with.

    Args:
        monitor: The metric to watch; it must be one of the training or validation data, never of the test.
        mode: `min` or `max`: whether less or more of it is better; None: as the module declares it in `better`.

    Raises:
        UserError: If the metric is one of the test data, or nothing says which way it is better.
    """

    def __init__(self, monitor: str = "val/loss", mode: Direction | None = None) -> None:
        if monitor.startswith("test"):
            raise UserError(f"--checkpoint.monitor {monitor}: the test data must not choose; take val/loss or val/acc")
        self.best_epoch = self.best_step = 0
        self.best_metrics: dict[str, float] = {}
        self.follows = mode is None  # what the module declares
        self._place: Place | None = None
        self._validated = -1  # steps before the last validation
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode or "min",
            save_on_train_epoch_end=not monitor.startswith("val"),
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Asks the module and the callbacks which way the metric is better, where nothing else has said it."""
        if self.follows:
            kinds = [type(pl_module), *map(type, trainer.callbacks)]  # type: ignore[attr-defined]
            mode = direction_of(str(self.monitor), declared(*kinds))
            if mode is None:
                raise UserError(f"--checkpoint.monitor {self.monitor}: which way is it better? Add --checkpoint.mode")
            self.follows = False
            self.mode, self.kth_value = mode, torch.tensor(float("inf" if mode == "min" else "-inf"))
        super().setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves a new best by a metric of the validation."""
        self._validated = trainer.global_step
        if self.monitor in trainer.callback_metrics:
            self._place = "before validation"  # a training that goes on from here begins with what it starts from
            super().on_validation_end(trainer, pl_module)
            self._place = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves a new best by any other metric; adds the metrics of the epoch to those of its last weights."""
        if self.monitor in trainer.callback_metrics:
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

    def _measured(self, trainer: Trainer) -> dict[str, float]:
        """The metrics of the weights as they are: those of the training only at the end of their epoch."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        stale = "train" if self._place is not None else "val" if self._validated != trainer.global_step else "test"
        return {name: value for name, value in metrics.items() if not name.startswith(stale)}

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
            if not (Path(here) / "best.ckpt").is_file():
                return
            state_dict = {
                name: value.replace(before, here) if isinstance(value, str) else value
                for name, value in state_dict.items()
            }
            state_dict["best_k_models"] = {
                path.replace(before, here): score for path, score in state_dict["best_k_models"].items()
            }
        self.best_epoch, self.best_step = state_dict.get("best_epoch", 0), state_dict.get("best_step", 0)
        self.best_metrics = state_dict.get("best_metrics", {})
        super().load_state_dict(state_dict)
