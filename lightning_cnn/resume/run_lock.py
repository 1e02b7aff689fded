"""The lock of a run folder: one process at a time trains there. Imports no torch.

A process announces itself by a heartbeat of its own, such as `.lock-1`, and then looks at those of others. Of two that
begin at the same time, the later one at least sees the other, so that never both go on, whatever the file system does.
"""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from lightning_cnn.errors import UserError
from lightning_cnn.resume.heartbeat import Heartbeat, Holder, holder

# variable with the folder of the run, made where it is missing and gone on with where it is there: for jobs that are
# started again
RUN_FOLDER = "LIGHTNING_CNN_RUN"
PREFIX = ".lock-"  # of the name of the file; a number follows
ATTEMPTS = 100


class RunLock(Heartbeat):
    """The lock of a run folder that this process holds. Made by `take`.

    Attributes:
        last_heartbeat: Last heartbeat of earlier processes that did not release the lock, in seconds of the file
            system's clock; None where there were none.
    """

    last_heartbeat: float | None = None

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Takes the lock of a run folder.

        Raises:
            UserError: If another process holds it.
            StorageError: If the folder can't be written.
        """
        for attempt in range(ATTEMPTS):
            others = lock_files(folder)
            if found := next(_holders(others), None):
                raise in_use(folder, found)
            lock = cls.announce(folder / f"{PREFIX}{1 + max(map(_number, others), default=0)}")
            if lock is None:
                continue  # another one was faster: see who
            others = [path for path in lock_files(folder) if path != lock.path]
            if next(_holders(others), None):
                lock.release()
                time.sleep(random.uniform(0, 0.01 * (attempt + 1)))  # both may have given way
                continue
            signs = []
            for path in others:
                with suppress(OSError):
                    signs.append(path.stat().st_mtime)
                    path.unlink()
            lock.last_heartbeat = max(signs, default=None)
            lock.beat()
            return lock
        raise in_use(folder, Holder())


def in_use(folder: Path, holder: Holder) -> UserError:
    """What to say to a process that comes too late."""
    who = f"by process {holder.pid} on {holder.host}" if holder.pid else "by a process that has just started"
    return UserError(f"{folder} is still being trained {who}; if that machine is down, retry in five minutes")


def lock_files(folder: Path) -> list[Path]:
    """The lock files in a run folder; there are none where nobody trains, or a version before 0.2 does."""
    return [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]


def holder_of(folder: Path) -> Holder | None:
    """Who holds the lock of a run folder, which need not be writable; None where nobody does."""
    return next(_holders(lock_files(folder)), None)


def _holders(paths: list[Path]) -> Iterator[Holder]:
    for path in paths:
        if found := holder(path):
            yield found


def _number(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))
