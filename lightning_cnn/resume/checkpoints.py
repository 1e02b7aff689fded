"""The options of the two checkpoints of a run, `best.ckpt` and `last.ckpt`."""

from typing import Literal

from lightning_cnn.resume.best_checkpoint import BestCheckpoint
from lightning_cnn.resume.last_checkpoint import LastCheckpoint


class Checkpoints:
    """What is kept of a run: the best epoch, which the test uses, and the last state, from which the run goes on.

    Args:
        monitor: The metric to watch; it must be one of the training or validation data, never of the test.
        mode: `min` if lower values of the metric are better, `max` if higher; required only for metrics without a
            declared direction.
        every_n_steps: Optimizer steps after which the last state is also saved within an epoch; 0 for never.
        every_n_minutes: Minutes after which it is kept within an epoch, too; 0 for never.

    Raises:
        UserError: If the metric is one of the test data or does not exist, or a number is negative.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] | None = None,
        every_n_steps: int = 0,
        every_n_minutes: float = 0.0,
    ) -> None:
        self.best = BestCheckpoint(monitor, mode)
        self.last = LastCheckpoint(every_n_steps)
        self.every_n_minutes = every_n_minutes
