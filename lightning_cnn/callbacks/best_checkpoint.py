"""best.ckpt: the epoch that was best by a metric."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_cnn.errors import UserError
from lightning_cnn.tracking.directions import Direction, declared, direction_of


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best value of a metric as `best.ckpt`; the test uses it.

    Args:
        monitor: The metric to watch; it must be one of the training or validation data, never of the test.
        mode: `min` or `max`: whether less or more of it is better; None: as the module declares it in `better`.

    Raises:
        UserError: If the metric is one of the test data, or nothing says which way it is better.
    """

    def __init__(self, monitor: str = "val/loss", mode: Direction | None = None) -> None:
        if monitor.startswith("test"):
            raise UserError(f"--checkpoint.monitor {monitor}: the test data must not choose; take val/loss or val/acc")
        self.best_epoch = 0
        self.follows = mode is None  # what the module declares
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode or "min",
            save_on_train_epoch_end=True,
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

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves a new best; does nothing as long as no validation has taken place."""
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self.best_epoch = trainer.current_epoch
        super()._save_checkpoint(trainer, filepath)

    def state_dict(self) -> dict[str, Any]:
        """The best value and the epoch it is of."""
        return {**super().state_dict(), "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best value again, also where the run folder has been moved since."""
        self.best_epoch = state_dict.get("best_epoch", 0)
        before, here = state_dict["dirpath"], str(self.dirpath)
        if before != here and (Path(here) / "best.ckpt").is_file():
            state_dict = {
                name: value.replace(before, here) if isinstance(value, str) else value
                for name, value in state_dict.items()
            }
            state_dict["best_k_models"] = {
                path.replace(before, here): score for path, score in state_dict["best_k_models"].items()
            }
        super().load_state_dict(state_dict)
