"""The two checkpoints of a run: best.ckpt and last.ckpt."""

from typing import Literal

from pytorch_lightning.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best value of a metric as `best.ckpt`; the test uses it.

    Args:
        monitor: The metric to watch; it must be one of the training or validation data, never of the test.
        mode: `min` or `max`: whether less or more of it is better.
    """

    def __init__(self, monitor: str = "val/loss", mode: Literal["min", "max"] = "min") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )


class LastCheckpoint(ModelCheckpoint):
    """Keeps the last finished epoch as `last.ckpt`, better or not; a run goes on from it.

    `ModelCheckpoint(save_last=True)` would leave it behind in epochs that are no new best.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
