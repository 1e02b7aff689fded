"""Stops a run whose loss is no longer a number."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.errors import UserError


class FiniteLoss(Callback):
    """Stops when the loss of the training or a validation is NaN or infinite, and says at which step it first was.

    On one CPU process every step is looked at. Elsewhere a look would wait for the device, so that the first bad step
    is noted there and fetched every `log_every_n_steps` and at the end of the epoch, by all processes together.
    """

    def __init__(self) -> None:
        self._first: torch.Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the loss of a step.

        Raises:
            UserError: If it was not finite.
        """
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, torch.Tensor):
            return
        if loss.device.type == "cpu" and trainer.world_size == 1:
            if not math.isfinite(loss):
                raise _not_finite("training", f"at step {trainer.global_step}")
            return
        step, none = trainer.global_step, torch.iinfo(torch.int64).max
        if self._first is None:
            self._first = torch.full((), none, device=loss.device)
        self._first = torch.where(torch.isfinite(loss).all(), self._first, self._first.clamp(max=step))
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 or batch_idx + 1 == trainer.num_training_batches:
            first = int(trainer.strategy.reduce(self._first, reduce_op="min"))
            if first != none:
                raise _not_finite("training", f"at step {first}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the mean loss of a validation, before its weights can be kept as the best.

        Raises:
            UserError: If it is not finite.
        """
        loss = trainer.callback_metrics.get("val/loss")
        if trainer.sanity_checking:  # of so few examples there may be no loss
            return
        if loss is not None and not math.isfinite(loss):
            raise _not_finite("validation", f"after step {trainer.global_step}")


def _not_finite(stage: str, when: str) -> UserError:
    return UserError(
        f"the {stage} loss is NaN or infinite {when}: try a smaller `model.lr` or `trainer.gradient_clip_val` 1, or "
        "check the data for invalid values"
    )
