"""Signals that ask a training to stop: noted at any moment, heeded where all is in order. Imports no torch.

A training that is told to stop ends with `Interrupted`; whoever called it finds the signal there, or with `received`.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C; the usual request to end; Slurm's warning before the end of the time; submitit's
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# set by whoever starts several processes: torchrun, Slurm, Lightning
STARTED_BY_OTHERS = ("LOCAL_RANK", "RANK", "SLURM_PROCID")
PARENT_DIES = 1  # PR_SET_PDEATHSIG in linux/prctl.h


class Interrupted(SystemExit):
    """A signal has stopped the training.

    Args:
        signum: The signal; the exit code is 128 more, as shells have it: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int]]:
        """Lets it travel between processes, as what it was made of."""
        return type(self), (self.signum,)


_NOTHING = {"received": 0, "interrupts": 0, "waits": False, "others": False, "hard": True, "process": 0}
_state = dict(_NOTHING)
_told: list[Callable[[], None]] = []  # called when the first signal comes


def received() -> int:
    """The number of the first signal that asked this process to stop; 0 where none has."""
    return _state["received"]


def stop_if_received() -> None:
    """Ends the training here, where a signal has come to a process that is alone."""
    if received() and not _state["waits"]:
        raise Interrupted(received())


def defer_signals() -> None:
    """From here on a signal is only noted: several processes can't stop but together."""
    _state["waits"] = True


@contextmanager
def deferring_signals() -> Iterator[None]:
    """Only notes a signal that comes within the block, and stops behind it.

    For what must be done whole, such as taking a trial and recording how it ended.
    """
    before = _state["waits"]
    _state["waits"] = True
    try:
        yield
    finally:
        _state["waits"] = before
    stop_if_received()


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Within `deferring_signals`: a signal stops the code of this block at once, as at the start of a process.

    Raises:
        Interrupted: If a signal comes within the block and finds nothing to save, or has come before.
    """
    _state["waits"] = _state["others"]
    try:
        stop_if_received()
        yield
    finally:
        _state["waits"] = True


@contextmanager
def on_first_signal(tell: Callable[[], None]) -> Iterator[None]:
    """Calls a function as soon as the first signal comes within the block; it must be quick, and raise nothing."""
    _told.append(tell)
    try:
        yield
    finally:
        _told.remove(tell)


@contextmanager
def handling_signals(hard: bool = True) -> Iterator[None]:
    """Notes signals from here on; within another such block nothing changes.

    As long as this process is alone and has nothing to save (imports, reading of data) one ends it at once. Later,
    after `defer_signals`, it is only noted. Threads but for the first get no signals.

    Args:
        hard: Whether a second Ctrl-C ends the process whatever it is doing; otherwise it raises a KeyboardInterrupt.
    """
    if _state["process"] == os.getpid():
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        try:
            yield
        finally:
            if _state["process"] != os.getpid():  # else it is the first thread's, which has begun in the meantime
                forget()
        return
    others = any(
        int(os.environ.get(name) or 0) or name == "LOCAL_RANK" for name in STARTED_BY_OTHERS if name in os.environ
    )
    _state.update(_NOTHING, waits=others, others=others, hard=hard, process=os.getpid())
    if int(os.environ.get("LOCAL_RANK") or 0):
        _end_with_parent()
    before = {signum: signal.signal(signum, _note) for signum in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # whoever started this process may have held them back
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        forget()


def forget() -> None:
    """Forgets what has been noted and ordered, for the next training of this process."""
    _state.update(_NOTHING)


@contextmanager
def blocking_signals() -> Iterator[None]:
    """Keeps signals from this process, and from those that it starts until they listen; then they come."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """From here on a signal is too late: it would make a failure of a process that is at its end."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _note(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _state["process"]:  # a process that reads ahead: its parent decides on Ctrl-C
        if signum != signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        return
    _state["interrupts"] += signum == signal.SIGINT
    is_first = not _state["received"]
    _state["received"] = _state["received"] or signum
    if is_first:
        for tell in _told:
            tell()
    if _state["interrupts"] > 1 and not _state["hard"]:
        raise KeyboardInterrupt
    if _state["interrupts"] > 1:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"stopped at once\n")
        os._exit(128 + signum)
    if is_first and not _state["waits"]:  # a second one finds the process on its way out
        raise Interrupted(signum)


def obey_parent_only(_: int) -> None:
    """For a process that reads ahead: it ends when its parent ends it, whatever signals others send.

    Slurm sends them to all processes of a job; the parent would fail, and save nothing, where a reader is gone.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != os.getppid():
        pass
    os._exit(0)


def _end_with_parent() -> None:
    """Lets the system end this process when that which started it is gone: it would wait for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
