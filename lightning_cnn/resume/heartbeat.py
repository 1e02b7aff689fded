"""Heartbeats: files by which a process shows others that it lives, on any machine. Imports no torch.

A file counts as long as its process holds a `flock` on it. Where that says nothing (a file system without `flock`, a
process on another machine), it counts for five minutes after the last sign of life, which is its time, by the clock of
the file system.
"""

import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from lightning_cnn.resume.files import storage_error

CLOCK = ".lock-clock"  # beginning of the name of a file that only shows the time
HEARTBEAT_SECONDS = 30  # between two signs of life
TIMEOUT_SECONDS = 300  # without a sign of life after which a process on another machine counts as gone
START_SECONDS = 10  # that a process has to lock the file that it has just made


@dataclass(frozen=True)
class Holder:
    """Whose heartbeat it is.

    Attributes:
        pid: The process; 0 while it is beginning.
        host: Its machine, for the eye.
        kernel: The start of its machine's kernel, the same in all containers there: where `flock` tells the truth.
        pids: The numbering of processes in which `pid` means something.
        job: Its Slurm job, empty outside of Slurm.
        starts: How often that job, or torchrun, has been started again.
        flock: Whether it could lock its file.
    """

    pid: int = 0
    host: str = ""
    kernel: str = ""
    pids: int = 0
    job: str = ""
    starts: int = 0
    flock: bool = True

    @classmethod
    def here(cls, flock: bool) -> Self:
        """This process."""
        host = kernel = socket.gethostname()
        pids = 0
        with suppress(OSError):  # a system without /proc
            pids = Path("/proc/self/ns/pid").stat().st_ino
            kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(os.getpid(), host, kernel, pids, os.environ.get("SLURM_JOB_ID", ""), _starts(), flock)


class Heartbeat:
    """The file of this process, and its signs of life. Processes that it forks don't hold it.

    Made by `announce`.

    Attributes:
        path: The file.
        holder: This process.
        lost: Whether another process has removed it, as this one gave no sign of life for long, or the folder is gone.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.holder = Holder.here(_flock(descriptor))
        self.lost = False
        self._descriptor: int | None = descriptor
        self._mutex = threading.Lock()
        self._over = threading.Event()
        _held.append(self)

    @classmethod
    def announce(cls, path: Path) -> Self | None:
        """Makes the file and locks it; None where there is one of this name.

        Raises:
            StorageError: If it can't be written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            beat = cls(path, os.open(path, flags, 0o666))
        except FileExistsError:
            return None
        except OSError as error:
            raise storage_error(path, error) from None
        assert beat._descriptor is not None
        try:
            os.write(beat._descriptor, json.dumps(asdict(beat.holder)).encode())
            os.utime(beat._descriptor)
        except OSError as error:
            beat.release()
            raise storage_error(path, error) from None
        return beat

    def beat(self) -> None:
        """Gives signs of life from here on, by a thread."""
        threading.Thread(target=self._send_heartbeats, daemon=True).start()

    def empty(self) -> None:
        """Empties the file, which takes no room on the disk: whoever is killed now was told to stop."""
        with suppress(OSError):  # and no lock: a handler of signals may call this
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, 0)

    def release(self, leave: bool = False) -> None:
        """Ends the signs of life and removes the file. Does nothing the second time, and in a forked process.

        Args:
            leave: Whether to leave the file, as that of a process that is gone.
        """
        self._over.set()
        with self._mutex:
            if self._descriptor is None:
                return
            with suppress(OSError):
                if leave:
                    os.ftruncate(self._descriptor, 0)
                    os.utime(self._descriptor, (0, 0))
                elif os.path.samestat(os.fstat(self._descriptor), self.path.stat()):  # not that of another process
                    self.path.unlink()
            self._close()

    def _send_heartbeats(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            with self._mutex:
                if self._descriptor is None:
                    return
                try:
                    os.utime(self._descriptor)
                    self.lost = os.fstat(self._descriptor).st_nlink == 0
                except OSError as error:  # the file server may be away for a while
                    self.lost = error.errno == errno.ESTALE
            if self.lost:
                return

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.remove(self)


_held: list[Heartbeat] = []


def _leave_to_parent() -> None:
    """In a process that is forked: a lock is free when the parent is gone, whoever of its children stays behind."""
    for beat in [*_held]:
        beat._mutex = threading.Lock()
        beat._close()


os.register_at_fork(after_in_child=_leave_to_parent)


def file_system_time(folder: Path) -> float:
    """The time now by the clock that dates files in a folder; that of this machine where it can't be written."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=f"{CLOCK}.tmp-{os.getpid()}-") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def holder(path: Path, known: Holder | None = None) -> Holder | None:
    """Who gives signs of life by a file; None where its process has removed it or is gone.

    Args:
        path: The file.
        known: Its process, where that is noted elsewhere; by default the file says it.
    """
    with _opened(path) as descriptor:
        try:
            state = path.stat() if descriptor is None else os.fstat(descriptor)
        except OSError:
            return None
        if not state.st_nlink:
            return None  # removed at this moment
        found = known or (None if descriptor is None else _content(descriptor))
        mine = Holder.here(flock=True)
        near = found is not None and found.kernel == mine.kernel
        if descriptor is not None and (found is None or found.flock):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return found or Holder()
            except OSError:
                pass
            else:
                if near:
                    return None
        elif near and found is not None and found.pids == mine.pids and not _exists(found.pid):
            return None
    if found is not None and found.job and found.job == mine.job and found.starts != mine.starts:
        return None  # the job was started again, on another machine
    age = file_system_time(path.parent) - state.st_mtime
    begins = descriptor is not None and found is None
    return (found or Holder()) if age < (START_SECONDS if begins else TIMEOUT_SECONDS) else None


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A lock file to read; None where that is not allowed, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> Holder | None:
    """What a lock file says; None as long as its process is beginning."""
    try:
        return Holder(**json.loads(os.read(descriptor, 10_000)))
    except (OSError, ValueError, TypeError):
        return None


def _flock(descriptor: int) -> bool:
    """Locks a file of this process; False where the file system knows no such locks."""
    end = time.monotonic() + START_SECONDS / 2
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody looks whether it is locked
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        except OSError:
            return False
        else:
            return True


def _exists(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _starts() -> int:
    return sum(int(os.environ.get(name) or 0) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
