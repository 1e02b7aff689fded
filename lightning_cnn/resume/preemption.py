"""Ends the training where a signal asks for it: all processes together, with a complete checkpoint."""

import contextlib
import time
from datetime import timedelta
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import distributed

from lightning_cnn.errors import check
from lightning_cnn.resume.last_checkpoint import LastCheckpoint
from lightning_cnn.resume.lightning_loops import gathers_gradients
from lightning_cnn.resume.signals import Interrupted, defer_signals, received

ANSWER_SECONDS = 10


class Preemption(Callback):
    """Looks before each batch whether a signal has come to any of the processes, saves, and raises `Interrupted`.

    A signal may come to one process of many, and at any time: its handler only notes it. The processes tell each other
    with each batch, by a message that travels while they compute and is read with the next batch. Within a gathering of
    gradients the end waits for the step of the optimizer. In a validation it does not wait, but this begins anew when
    the run goes on. It must come right behind the `LastCheckpoint`.

    Args:
        last: Writes the checkpoint.
        every_n_minutes: Minutes between two checkpoints within an epoch; 0 for none.
        timeout_minutes: Minutes after which a process that does not answer is given up.

    Raises:
        UserError: If a number lies outside its range.
    """

    def __init__(self, last: LastCheckpoint, every_n_minutes: float = 0, timeout_minutes: float = 30) -> None:
        check("checkpoint.every_n_minutes", every_n_minutes, least=0)
        check("timeout_minutes", timeout_minutes, above=0, most=10**6)
        self.last = last
        self.every = 60 * every_n_minutes
        self.timeout = timedelta(minutes=timeout_minutes)
        self._time = time.monotonic()
        self._group: Any = None
        self._answering: Any = None
        self._asked: tuple[Any, torch.Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Opens the lines between the processes."""
        defer_signals()
        if trainer.world_size > 1 and self._group is None:
            # of their own: what travels here gets in the way of no gradient, and is seen by the CPU at no cost
            self._group = distributed.new_group(backend="gloo", timeout=self.timeout)
            self._answering = distributed.new_group(backend="gloo", timeout=self.timeout)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a training to which a signal came while it was being prepared."""
        self._time = time.monotonic()
        self._stop_now()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Saves before a batch and, where a signal has come, ends the training."""
        signum, due = self._ask()
        if (signum or due) and not gathers_gradients(trainer):
            self.last.save(trainer, "between batches")
            self._time = time.monotonic()
            if signum:
                raise Interrupted(signum)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Ends the training within a validation."""
        signum, _due = self._ask()
        if not signum or gathers_gradients(trainer):
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):  # the averaged weights are validated: back to those that learn
                callback.on_validation_epoch_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self.last.save(trainer, "before validation")
        raise Interrupted(signum)

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """Ends the test; a run that goes on begins it anew."""
        signum, _due = self._ask()
        if signum:
            raise Interrupted(signum)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends before the test."""
        self._stop_now()

    def wait_for_others(self) -> None:
        """Waits for the other processes: whoever started them may kill the rest as soon as one has ended."""
        if self._group is not None:
            with contextlib.suppress(RuntimeError):
                distributed.barrier(self._group)

    def missing(self) -> str:
        """Names the processes that do not answer, in words."""
        if self._answering is None:
            return f"not all came to the start within `timeout_minutes` {self.timeout.total_seconds() / 60:g}"
        try:
            limit = timedelta(seconds=ANSWER_SECONDS)
            distributed.monitored_barrier(self._answering, limit, wait_all_ranks=True)
        except RuntimeError as error:
            return " ".join(str(error).split())
        minutes = self.timeout.total_seconds() / 60
        return f"all answer now, so one was slower than `timeout_minutes` {minutes:g}"

    def _ask(self) -> tuple[int, bool]:
        """The signal that had come to any process, and whether a checkpoint was due, when this was asked last."""
        due = bool(self.every) and time.monotonic() - self._time >= self.every
        if self._group is None:
            return received(), due
        asked = self._asked
        said = torch.tensor([received(), int(due)])
        work = distributed.all_reduce(said, distributed.ReduceOp.MAX, self._group, async_op=True)
        self._asked = work, said
        if asked is None:
            return 0, False
        asked[0].wait()
        signum, any_due = asked[1].tolist()
        return signum, bool(any_due)

    def _stop_now(self) -> None:
        self._ask()
        signum, _ = self._ask()  # what all have said in the line before
        if signum:
            raise Interrupted(signum)
