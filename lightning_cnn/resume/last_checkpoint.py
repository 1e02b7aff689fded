"""last.ckpt: where a run goes on from, in the middle of an epoch too."""

import math
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer import call
from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnn.errors import UserError

NAME = "last.ckpt"
LOGGED = "logged_steps"  # what a checkpoint says of the steps before it, as loggers count them
# where in the course of the training a checkpoint is taken
Place = Literal["between epochs", "between batches", "before validation"]


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
        if every_n_steps < 0:
            raise UserError(f"--checkpoint.every_n_steps {every_n_steps}: it must be 0 (never) or more")
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
        trainer.should_stop = self.stopped_early and not goes_further

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
        epochs, _ = _counts(trainer)
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        done = batches.processed, epochs.processed
        if done == self._saved or not trainer.global_step:
            return
        self._place = place
        try:
            trainer.save_checkpoint(Path(self.dirpath) / NAME)
        finally:
            self._place = None
        self._saved = done

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
        """Notes what is saved already."""
        loops = checkpoint.get("loops", {}).get("fit_loop")
        if loops is None:
            return
        epoch, batch = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
        pending = loops["epoch_loop.val_loop.batch_progress"]["total"]
        if pending["ready"] == pending["processed"]:
            self._saved = batch["total"]["processed"], epoch["processed"]


class ResumedEpoch(Callback):
    """Puts the reading of the data and the other callbacks where a run goes on, within an epoch or between two.

    Lightning reads an epoch that goes on from its first batch, and may begin to read ahead before it knows which epoch
    it is. And it leaves out `on_train_epoch_start`: layers would stay frozen, clocks and sums be of nothing.
    It must be the last of the callbacks, so that `on_train_start` comes before.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins the epoch that goes on."""
        loop = trainer.fit_loop
        if not loop.is_resuming:
            return
        epochs, batches = _counts(trainer)
        seen = batches.processed if loop.restarted_mid_epoch else 0
        assert loop._combined_loader is not None and loop._data_fetcher is not None
        for loader in loop._combined_loader.flattened:
            if hasattr(loader.sampler, "go_on"):
                loader.sampler.go_on(epochs.processed, seen)
            elif seen:
                rank_zero_warn("the data begin anew in the middle of an epoch: their sampler has no method `go_on`")
        iter(loop._data_fetcher)
        loop._restarting = False  # else schedules that step each epoch would leave this one out
        if not loop.restarted_mid_epoch:
            loop.epoch_loop.restarting = False
            return
        loggers, trainer.loggers = trainer.loggers, []  # what is logged at the beginning of an epoch has been logged
        call._call_callback_hooks(trainer, "on_train_epoch_start")
        call._call_lightning_module_hook(trainer, "on_train_epoch_start")
        trainer.loggers = loggers


def within_epoch(trainer: Trainer) -> bool:
    """Whether an epoch has begun and not ended."""
    epochs, _ = _counts(trainer)
    return bool(epochs.started > epochs.processed)


def gathers_gradients(trainer: Trainer) -> bool:
    """Whether batches have been seen whose gradients wait for further ones; before a batch, or in a validation."""
    _, batches = _counts(trainer)
    at_end = batches.processed == trainer.num_training_batches
    return not at_end and bool(batches.processed % trainer.accumulate_grad_batches)


def _counts(trainer: Trainer) -> tuple[Any, Any]:
    """Lightning's counters of the epochs, and of the batches in this one."""
    return trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress.current


def set_place(trainer: Trainer, checkpoint: dict[str, Any], place: Place) -> None:
    """Writes into a checkpoint what has been logged, and the counters from which Lightning's loops find their way.

    Between epochs it looks as if the next one had been announced and not begun; between batches as if the epoch had
    been left after a batch; before a validation as if this had been left after none of its batches.
    """
    # as loggers count; Lightning counts a batch after the validation that follows it
    counted: int = trainer.fit_loop.epoch_loop._batches_that_stepped
    stepped = place == "before validation" and not trainer.fit_loop.epoch_loop._should_accumulate()
    checkpoint[LOGGED] = counted + stepped
    loops = checkpoint["loops"]["fit_loop"]
    epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    validation = loops["epoch_loop.val_loop.batch_progress"]
    own = loops["epoch_loop.state_dict"]
    validation["total"] = dict.fromkeys(validation["total"], 0)
    validation["current"] = dict.fromkeys(validation["current"], 0)
    validation["is_last_batch"] = False
    if place == "before validation":
        validation["total"] |= {"ready": 1, "started": 1}
        batch["total"]["completed"] = batch["total"]["processed"]
        batch["current"]["completed"] = batch["current"]["processed"]
        return
    batch["is_last_batch"] = False
    if place == "between epochs":
        finished = epoch["total"]["processed"]
        epoch["total"] = dict.fromkeys(epoch["total"], finished) | {"ready": finished + 1}
        checkpoint["epoch"] = finished - 1
        batch["current"] = dict.fromkeys(batch["current"], 0)
        for name in ("optimizer.step", "optimizer.zero_grad"):
            progress: Any = loops["epoch_loop.automatic_optimization.optim_progress"]
            for part in name.split("."):
                progress = progress[part]
            progress["current"] = dict.fromkeys(progress["current"], 0)
        scheduler = loops["epoch_loop.scheduler_progress"]
        scheduler["current"] = dict.fromkeys(scheduler["current"], 0)
    for part in ("total", "current"):
        batch[part] = dict.fromkeys(batch[part], batch[part]["processed"])
    epoch["current"] = dict(epoch["total"])
    if place == "between batches" and _validation_seems_due(trainer, batch):
        own["_batches_that_stepped"] -= 1  # Lightning adds it once more


def _validation_seems_due(trainer: Trainer, batch: dict[str, Any]) -> bool:
    """Whether Lightning's loop, when it goes on, first thinks of a validation, which it then skips."""
    every = trainer.val_check_batch
    if every is None or math.isinf(every) or not trainer.fit_loop.epoch_loop._should_check_val_epoch():
        return False
    part = "total" if trainer.check_val_every_n_epoch is None else "current"
    return bool(batch[part]["ready"] % every == 0)
