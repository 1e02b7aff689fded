"""The processes that work on a study: which they are, whether they live, and how they died."""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from lightning_cnn.resume.files import make_folder, storing
from lightning_cnn.resume.run_lock import GONE_SECONDS, SIGN_SECONDS, file_system_time
from lightning_cnn.resume.signals import telling

AT_WORK = "at work\n"  # what a process writes into its sign, and takes out when it is told to stop


class Workers:
    """The signs of the processes that work on a study: files in a folder, whose time is their last sign of life.

    A process takes its sign away when it ends in order. One that is told to stop and killed before it has ended leaves
    an empty sign, and one that is killed without warning a sign that says it is at work. Neither of this needs room on
    the disk.

    Args:
        folder: The folder, on the file system that the processes share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._signs = False

    def owner(self) -> dict[str, Any]:
        """This process, as what it takes says to whom it belongs."""
        return this_process() | {"signs": self._signs}

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Gives signs of life of this process.

        Raises:
            StorageError: If the sign can't be written.
        """
        file = self._sign(this_process())
        over = threading.Event()

        def give_signs() -> None:
            while not over.wait(SIGN_SECONDS):
                with suppress(OSError):
                    os.utime(file)

        def empty() -> None:
            with suppress(OSError):
                os.truncate(file, 0)

        make_folder(self.folder, parents=False)
        try:
            with storing(file):
                file.write_text(AT_WORK)
            self._signs = True
            threading.Thread(target=give_signs, daemon=True).start()
            with telling(empty):
                yield
        finally:
            self._signs = False
            over.set()
            with suppress(OSError):
                file.unlink()

    def lives(self, owner: Mapping[str, Any]) -> bool:
        """Whether a process is still there, as far as one can see from this one."""
        me = this_process()
        sign = self._sign(owner)
        if owner["host"] == me["host"]:  # it may also live on and do other things
            return _lives(owner) and (not owner.get("signs") or sign.is_file())
        if owner.get("job") and owner["job"] == me["job"] and owner["restart"] < me["restart"]:
            return False  # Slurm has started the job of both again, on another machine
        try:  # by the clock of the file system, which is one for all machines
            return file_system_time(self.folder) - sign.stat().st_mtime < GONE_SECONDS
        except FileNotFoundError:
            return False

    def was_killed(self, owner: Mapping[str, Any]) -> bool:
        """Whether a process that is gone died at its work, without having been told to stop."""
        try:
            return self._sign(owner).stat().st_size > 0
        except FileNotFoundError:
            return False

    def forget(self, owner: Mapping[str, Any]) -> None:
        """Takes the sign of a dead process away."""
        with suppress(OSError):
            self._sign(owner).unlink()

    def _sign(self, owner: Mapping[str, Any]) -> Path:
        return self.folder / f"{owner['host']}-{owner['pid']}-{owner['started']:.0f}"


def this_process() -> dict[str, Any]:
    """What tells this process from all others, on all machines."""
    return _described(os.getpid())


@cache
def _described(pid: int) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": psutil.Process(pid).create_time(),
        "ticks": _ticks(pid),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def _ticks(pid: int) -> str | None:
    """When a process was started, on a clock that nobody sets: that of the kernel, counted from this boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:  # not a Linux
        return None


def _lives(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is there, and not another one with its number."""
    try:
        process = psutil.Process(owner["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if owner.get("ticks"):
            return bool(_ticks(owner["pid"]) == owner["ticks"])
        return bool(abs(process.create_time() - owner["started"]) < 2)
    except psutil.NoSuchProcess:
        return False
