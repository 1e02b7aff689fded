"""A validation at the end of each training."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class LastValidation(Callback):
    """Validates after the last epoch or step where nothing else does, so that the last weights have metrics.

    That is where `max_steps` ends within an epoch, and where the last epoch is not one of those that
    `check_val_every_n_epoch` or `val_check_interval` name.

    Lightning validates at once where a callback asks for the end of the training, so this one does, and takes it back:
    a run that ends by its steps or epochs has not been stopped early.
    """

    def __init__(self) -> None:
        self._before: tuple[Any, ...] | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Asks for the end after the last batch, and for a validation in this epoch."""
        loop: Any = trainer.fit_loop
        if self._is_end(trainer):
            self._before = (
                trainer.should_stop, loop.min_epochs, loop.epoch_loop.min_steps, trainer.check_val_every_n_epoch
            )  # fmt: skip
            self._set(trainer, True, None, None, None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes it back."""
        if self._before is not None:
            self._set(trainer, *self._before)
            self._before = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes it back where nothing is validated."""
        self.on_validation_start(trainer, pl_module)

    def _is_end(self, trainer: Trainer) -> bool:
        """Whether the training ends with this batch, and Lightning would not validate after it."""
        by_steps = 0 <= trainer.max_steps <= trainer.global_step
        by_epochs = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        fetcher: Any = trainer.fit_loop._data_fetcher
        ends = trainer.enable_validation and (by_steps or by_epochs)
        return ends and not trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)

    def _set(self, trainer: Any, stop: bool, min_epochs: Any, min_steps: Any, every: int | None) -> None:
        trainer.should_stop, trainer.check_val_every_n_epoch = stop, every
        trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = min_epochs, min_steps
