"""What comes in the way of a training, at the first call of a method."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.resume.files import storage_error


class Once:
    """Does something to this process at the first call of a method.

    Args:
        do: What it does.
        call: At which call.
    """

    def __init__(self, do: Callable[[], None], call: int = 1) -> None:
        self.do = do
        self.left = call

    def before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method that does it first."""

        def changed(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if not self.left:
                self.do()
            return method(*args, **kwargs)

        return changed


def stop() -> None:
    """What Slurm, `kill` or the parent do."""
    os.kill(os.getpid(), signal.SIGTERM)


def full() -> None:
    """What a full disk does."""
    raise storage_error(Path("file"), OSError(errno.ENOSPC, "No space left on device"))


def full_below() -> None:
    """What a full disk does where nobody of ours is writing."""
    raise OSError(errno.ENOSPC, "No space left on device")


def starve() -> None:
    """What happens without memory."""
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


class Crash(Callback):
    """Breaks off at a batch, as a killed process does; a run that goes on has only its checkpoint."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        if batches.processed == self.batch and not Path("crashed").exists():
            Path("crashed").touch()
            raise RuntimeError("pulled the plug")
