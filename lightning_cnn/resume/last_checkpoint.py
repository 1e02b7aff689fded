"""last.ckpt: where a run goes on from, in the middle of an epoch too."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.errors import check
from lightning_cnn.resume.lightning_loops import (
    Place,
    count_batches,
    done,
    done_in,
    gathers_gradients,
    set_place,
    within_epoch,
)

NAME = "last.ckpt"


class LastCheckpoint(Callback):
    """Keeps the state of the run as `last.ckpt`, such that a run that goes on from it ends as if it had never stopped.

    It is taken after each epoch and, on request, after so many steps or minutes: always when everything that belongs
    to the steps before is done and logged, and no gradients are gathered half. Lightning's own checkpoints of an epoch
    are taken before its last row is logged, and those of a step make the epoch begin anew when the run goes on.

    It must be the first of the callbacks: those behind it may change the weights when the training ends.

    Args:
        every_n_steps: Steps of the optimizer between two checkpoints within an epoch; 0 for none.

    Raises:
        UserError: If the number is negative.
    """

    def __init__(self, every_n_steps: int = 0) -> None:
        check("checkpoint.every_n_steps", every_n_steps, least=0)
        self.every_n_steps = every_n_steps
        self.dirpath = "."
        self.stopped_early = False
        self._place: Place | None = None
        self._saved: tuple[int, int] | None = None  # batches and epochs done at the last checkpoint
        self.goes_further = False  # whether an early end was not to be the last

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves a training as it is that had come to an early end, but for its test."""
        # the first process knows: the others may have looked when it had begun to write into the run folder
        goes_further = trainer.strategy.broadcast(self.goes_further)
        # what goes further may be interrupted in turn
        trainer.should_stop = self.stopped_early = self.stopped_early and not goes_further

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the epoch before."""
        if not within_epoch(trainer):
            self.save(trainer, "between epochs")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last epoch."""
        self.stopped_early = trainer.should_stop
        self.save(trainer, "between epochs")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Saves what lies before the batch, when it is time."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0 and not gathers_gradients(trainer):
            self.save(trainer, "between batches")

    def save(self, trainer: Trainer, place: Place) -> None:
        """Writes the checkpoint, unless that of this place is there already; all processes must call it.

        Args:
            trainer: The trainer.
            place: Where in the course of the training it is.
        """
        if done(trainer) == self._saved or not trainer.global_step:
            return
        self._place = place
        try:
            trainer.save_checkpoint(self.file)
        finally:
            self._place = None
        self._saved = done(trainer)

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return Path(self.dirpath) / NAME

    @property
    def is_saving(self) -> bool:
        """Whether the checkpoint that is being made is `last.ckpt`."""
        return self._place is not None

    def state_dict(self) -> dict[str, Any]:
        """Whether the training has come to an early end."""
        return {"stopped_early": self.stopped_early}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up whether the training has come to an early end."""
        self.stopped_early = state_dict["stopped_early"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes the counters of Lightning's loops as they must be when the run goes on, and what has been logged."""
        if self._place is not None:
            set_place(trainer, checkpoint, self._place)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes what is saved already; the patience of `EarlyStopping` is that of the configuration, not the saved."""
        for callback in trainer.early_stopping_callbacks:
            if (saved := checkpoint["callbacks"].get(callback.state_key)) is not None:
                saved["patience"] = callback.patience
        if pl_module.automatic_optimization:
            count_batches(checkpoint)
        self._saved = done_in(checkpoint) or self._saved
