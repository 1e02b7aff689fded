"""The journal of a study: a file to which any number of processes append, on a file system that they share."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.storages.journal._storage import JournalOperation

from lightning_cnn.resume.files import storing
from lightning_cnn.resume.signals import deferring_signals

# an entry about a study that there is not, which changes nothing
NOTHING = {"op_code": int(JournalOperation.DELETE_STUDY), "study_id": -1, "worker_id": ""}


class Lock(BaseJournalFileLock):
    """Lets one process at a time work on a file, by a lock file that processes on other machines see, too.

    Optuna's lock is taken from a process that has held it for half a minute. This one also falls as soon as its process
    has died, where that was on this machine.

    Args:
        path: The file. The lock is `<path>.lock`, beside `<path>.here`, which only processes of one machine share.
    """

    def __init__(self, path: Path) -> None:
        self._file = JournalFileOpenLock(str(path))
        self._path = Path(f"{path}.lock")
        self._here = Path(f"{path}.here")
        self._descriptor = -1

    def acquire(self) -> bool:
        """Waits for the lock.

        Raises:
            StorageError: If it can't be made.
        """
        with storing(self._path):
            self._descriptor = os.open(self._here, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                with suppress(OSError):  # a file system without such locks
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                    if (
                        self._path.read_text("utf-8") == socket.gethostname()
                    ):  # no other process of this machine can have it
                        self._path.unlink(missing_ok=True)
                self._file.acquire()
            except BaseException:
                os.close(self._descriptor)
                raise
            with suppress(OSError):  # a full disk
                self._path.write_text(socket.gethostname(), "utf-8")
        return True

    def release(self) -> None:
        """Gives the lock back; another process may have taken it from one that was too slow."""
        with suppress(RuntimeError):
            self._file.release()
        os.close(self._descriptor)


class Journal(BaseJournalBackend):
    """Appends entries whole.

    A process that dies while it writes leaves half a line. Optuna's own file would append the next entry to it, and
    could not be read any more. Here the half ends with a line of its own, which readers pass over: nobody was told that
    it had been written.

    Args:
        path: The file, a JSON object a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock(path)
        self._starts = [0]  # where the entries begin, by number

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Gives the entries from this number on."""
        number = min(log_number_from, len(self._starts) - 1)
        end = self._starts[number]
        with self._path.open("rb") as file:
            file.seek(end)
            *lines, _ = file.read().split(b"\n")  # what has no end is being written, or its writer has died
        for at, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                if at == len(lines):  # another machine may not see all of it yet
                    return
                entry = NOTHING
            end += len(line) + 1
            number += 1
            if number == len(self._starts):
                self._starts.append(end)
            if number > log_number_from:
                yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends entries, or none of them.

        Raises:
            StorageError: If the disk refuses them.
        """
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with deferring_signals(), get_lock_file(self._lock), storing(self._path), open(self._path, "r+b", 0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(-1, os.SEEK_END)
                text = text if file.read() == b"\n" else b"\n" + text
            try:
                written = 0
                while written < len(text):
                    written += file.write(text[written:])
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
