"""Lightning's private state of its loops, signals and launchers: all of it is touched here, nowhere else.

Tested with pytorch-lightning 2.6.6. What is used: the counters of the fit loop, in the trainer and in a
checkpoint (`loops.fit_loop`); `FitLoop._combined_loader`, `_data_fetcher`, `_restarting`, `restarted_mid_epoch`;
`_TrainingEpochLoop._batches_that_stepped`, `_should_accumulate`, `_should_check_val_epoch`,
`_broadcast_sigterm_tensor`; `Trainer._signal_connector`; `Strategy._timeout`; the launchers of subprocesses.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal
from unittest import mock

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.accelerators import CUDAAccelerator
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher, subprocess_script
from pytorch_lightning.trainer import call
from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnn.resume.signals import blocking_signals

LOGGED = "logged_steps"  # the steps before a checkpoint, as loggers count them
NCCL_SECONDS = 60  # NCCL, which ends a process without a word, waits this much longer than we do
# where in the course of the training a checkpoint is taken
Place = Literal["between epochs", "between batches", "before validation"]


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
        if loop.restarted_on_epoch_end:  # a checkpoint of others, taken after the last batch: the next epoch begins
            loop.epoch_progress.increment_completed()
            loop.reset_restart_stage()
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


def batches_begun(trainer: Trainer) -> int:
    """Training batches since the start of the run, the current one included."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def done(trainer: Trainer) -> tuple[int, int]:
    """Batches and epochs that the run has finished."""
    epochs, _ = _counts(trainer)
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return batches.processed, epochs.processed


def done_in(checkpoint: dict[str, Any]) -> tuple[int, int] | None:
    """Batches and epochs that were finished when a checkpoint was taken; None where its validation is pending."""
    loops = checkpoint.get("loops", {}).get("fit_loop")
    if loops is None:
        return None
    pending = loops["epoch_loop.val_loop.batch_progress"]["total"]
    if pending["ready"] != pending["processed"]:
        return None
    return loops["epoch_loop.batch_progress"]["total"]["processed"], finished_epochs(checkpoint)


def trained_epochs(checkpoint: dict[str, Any]) -> int:
    """Epochs of which all batches had been seen when a checkpoint was taken; the last may lack its validation."""
    loops = checkpoint["loops"]["fit_loop"]
    current = loops["epoch_progress"]["current"]
    validating = current["started"] > current["processed"] and loops["epoch_loop.batch_progress"]["is_last_batch"]
    return finished_epochs(checkpoint) + bool(validating)


def finished_epochs(checkpoint: dict[str, Any]) -> int:
    """Epochs that had come to their end when a checkpoint was taken."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def count_batches(checkpoint: dict[str, Any]) -> None:
    """Makes the counters of a checkpoint count batches, where versions before 0.3 made several steps in one call.

    They stepped in Lightning's manual optimization, which counts apart, and counted the calls where it counts batches.

    Args:
        checkpoint: A checkpoint of a training whose steps are Lightning's; changed in place.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    manual = loops.get("epoch_loop.manual_optimization.optim_step_progress")
    if manual is None or not manual["total"]["completed"]:
        return
    steps, each = manual["total"]["completed"], checkpoint.get("hyper_parameters", {}).get("steps_per_call", 1)
    batch, own = loops["epoch_loop.batch_progress"], loops["epoch_loop.automatic_optimization.optim_progress"]
    calls, is_whole = batch["current"]["processed"], batch["is_last_batch"]
    # the last call of an epoch has fewer batches
    current = steps // trained_epochs(checkpoint) if is_whole and calls else calls * each
    for counter in (batch, own["optimizer"]["step"], own["optimizer"]["zero_grad"]):
        counter["total"] = dict.fromkeys(counter["total"], steps)
        counter["current"] = dict.fromkeys(counter["current"], current)
    for part in ("total", "current"):
        manual[part] = dict.fromkeys(manual[part], 0)


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
        optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        for progress in (optimizer["step"], optimizer["zero_grad"], loops["epoch_loop.scheduler_progress"]):
            progress["current"] = dict.fromkeys(progress["current"], 0)
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


def own_signals(trainer: Trainer) -> None:
    """Leaves signals to `lightning_cnn.resume.signals`, and spares the message that Lightning sends each step.

    Args:
        trainer: A new trainer.
    """
    connector: Any = trainer._signal_connector
    connector.register_signal_handlers = _nothing
    loop: Any = trainer.fit_loop.epoch_loop
    loop._broadcast_sigterm_tensor = _nothing


def limit_waiting(trainer: Trainer, minutes: float) -> None:
    """Sets how long a process waits for the others.

    Args:
        trainer: A new trainer.
        minutes: The limit.
    """
    if hasattr(trainer.strategy, "_timeout"):
        more = NCCL_SECONDS if isinstance(trainer.accelerator, CUDAAccelerator) else 0
        trainer.strategy._timeout = timedelta(minutes=minutes, seconds=more)


def starts_first_process(trainer: Trainer) -> bool:
    """Whether the first process of a training is another one than this, as with `ddp_spawn`."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


@contextmanager
def observing(observe: Callable[[list[Any]], None]) -> Iterator[None]:
    """Puts an observer of the started processes in the place of Lightning's, which ends all where one has failed.

    Signals are held back from the processes until they listen.

    Args:
        observe: Is given the processes when they have been started; must return at once.
    """
    launcher, start = subprocess_script._SubprocessScriptLauncher, "_call_children_scripts"
    with (
        mock.patch.object(subprocess_script, "_launch_process_observer", observe),
        mock.patch.object(launcher, start, blocking_signals()(getattr(launcher, start))),
    ):
        yield


def _nothing(*_: Any) -> None:
    """Does nothing."""
