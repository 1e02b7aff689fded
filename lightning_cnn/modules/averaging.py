"""Averaged weights: what is validated, kept and tested are the same."""

from collections.abc import Iterator
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from torch.optim.swa_utils import AveragedModel

from lightning_cnn.errors import UserError


class AverageWeights(Callback):
    """Makes Lightning's `WeightAveraging` and what derives from it measure the weights that a checkpoint keeps.

    Until averaging begins, the average follows the weights: Lightning would validate and keep the untrained ones. And
    after the training there is no average any more, so that the test loads what the checkpoint holds for it: Lightning
    would load the weights that go on learning.

    It must come before the callbacks that average.
    """

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Follows, before the average is validated or saved, or replaces the weights."""
        for callback in _averaging(trainer):
            average: AveragedModel | None = callback._average_model
            if average is not None and not average.n_averaged:
                learning = [*pl_module.parameters(), *pl_module.buffers()]
                averaged = [*average.module.parameters(), *average.module.buffers()]
                for source, target in zip(learning, averaged, strict=True):
                    target.data.copy_(source.data)

    on_train_end = on_save_checkpoint = on_validation_epoch_start

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends averaging."""
        for callback in _averaging(trainer):
            callback._average_model = None


def check_averaging(callbacks: list[Callback]) -> None:
    """Refuses averages that no checkpoint can hold.

    Raises:
        UserError: If a callback is `StochasticWeightAveraging`.
    """
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise UserError(
            "`trainer.callbacks` StochasticWeightAveraging: it averages after the last validation, so no checkpoint "
            "contains the average; use EMAWeightAveraging"
        )


def _averaging(trainer: Trainer) -> Iterator[WeightAveraging]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return (callback for callback in callbacks if isinstance(callback, WeightAveraging))
