"""Ends a trial of a sweep early whose validation metric is worse than that of most trials before it."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Pruning(Callback):
    """Tells a metric after each validation, and ends the training where that is not worth going on.

    The training ends as one that has come to its end, so that its best checkpoint and its curves are there. After the
    last epoch there is nothing to end.

    Args:
        monitor: The metric.
        should_prune: Is given the value and the number of the validation, counted from 0; says whether to stop.
    """

    def __init__(self, monitor: str, should_prune: Callable[[float, int], bool]) -> None:
        self.monitor = monitor
        self.should_prune = should_prune
        self.reason: str | None = None
        self._validations = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the metric; the training then ends with this epoch."""
        if trainer.sanity_checking or self.monitor not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[self.monitor])
        number, self._validations = self._validations, self._validations + 1
        should_prune = self.should_prune(value, number)
        is_end = trainer.current_epoch + 1 == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        if should_prune and self.reason is None and not is_end:
            self.reason = f"pruned in epoch {trainer.current_epoch}: {self.monitor} {value:.4g}, worse than most trials"
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were, and why the training ends early."""
        return {"validations": self._validations, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting, so that a trial which was interrupted is compared at the same validations."""
        self._validations, self.reason = state_dict["validations"], state_dict["reason"]
