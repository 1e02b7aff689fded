"""The lock of a run folder: one process at a time trains there. Imports no torch.

A process announces itself by a file of its own, such as `.lock-1`, and then looks at those of others. Of two that begin
at the same time, the later one at least sees the other, so that never both go on, whatever the file system can do. A
file counts as long as its process holds a `flock` on it. Where that says nothing (a file system without `flock`, a
process on another machine), it counts for five minutes after the last sign of life, by the clock of the file system.
"""

import errno
import fcntl
import json
import os
import random
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

from lightning_cnn.errors import StorageError, UserError

PREFIX = ".lock-"  # of the name of the file; a number follows
SIGN_SECONDS = 30  # between two signs of life, which are the time of the file
GONE_SECONDS = 300  # without a sign of life after which a process on another machine counts as gone
BEGIN_SECONDS = 10  # that a process has to lock the file that it has just made
ATTEMPTS = 100


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

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


class RunLock:
    """A lock that this process holds, and its signs of life. Processes that it forks don't hold it.

    Made by `take`.

    Attributes:
        lost: Whether another process has taken it, as this one gave no sign of life for long, or the folder is gone.
        last_sign: The last sign of life of the processes before that had not let it go, seconds of the file system's
            clock; None where there were none.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.lost = False
        self.last_sign: float | None = None
        self._descriptor: int | None = descriptor
        self._mutex = threading.Lock()
        self._over = threading.Event()
        _held.append(self)

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
            lock = cls._announce(folder / f"{PREFIX}{1 + max(map(_number, others), default=0)}")
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
            lock.last_sign = max(signs, default=None)
            threading.Thread(target=lock._give_signs, daemon=True).start()
            return lock
        raise in_use(folder, Holder())

    def release(self, leave: bool = False) -> None:
        """Lets other processes take the lock. Does nothing the second time, and in a forked process.

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

    @classmethod
    def _announce(cls, path: Path) -> Self | None:
        """Makes a lock file and locks it; None where there is one of this name."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            lock = cls(path, os.open(path, flags, 0o666))
        except FileExistsError:
            return None
        except OSError as error:
            raise _refused(path, error) from None
        assert lock._descriptor is not None
        try:
            content = json.dumps(asdict(Holder.here(_flock(lock._descriptor)))).encode()
            os.write(lock._descriptor, content)
            os.utime(lock._descriptor)
        except OSError as error:
            lock.release()
            raise _refused(path, error) from None
        return lock

    def _give_signs(self) -> None:
        while not self._over.wait(SIGN_SECONDS):
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


_held: list[RunLock] = []


def _leave_to_parent() -> None:
    """In a process that is forked: a lock is free when the parent is gone, whoever of its children stays behind."""
    for lock in [*_held]:
        lock._mutex = threading.Lock()
        lock._close()


os.register_at_fork(after_in_child=_leave_to_parent)


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


def file_system_time(folder: Path) -> float:
    """The time now by the clock that dates files in a folder; that of this machine where it can't be written."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=f"{PREFIX}clock.tmp-{os.getpid()}-") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _holders(paths: list[Path]) -> Iterator[Holder]:
    for path in paths:
        if holder := _holder(path):
            yield holder


def _holder(path: Path) -> Holder | None:
    """Who holds a lock file; None where its process has let it go or is gone."""
    with _opened(path) as descriptor:
        try:
            state = path.stat() if descriptor is None else os.fstat(descriptor)
        except OSError:
            return None
        if not state.st_nlink:
            return None  # removed at this moment
        found = None if descriptor is None else _content(descriptor)
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
    return (found or Holder()) if age < (BEGIN_SECONDS if begins else GONE_SECONDS) else None


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
    end = time.monotonic() + BEGIN_SECONDS / 2
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


def _number(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def _starts() -> int:
    return sum(int(os.environ.get(name) or 0) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(f"can't write {path} ({error.strerror})")
