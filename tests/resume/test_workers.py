"""Processes that share pieces of work: what one leaves another does, and none stays behind."""

import os
import signal
import time
from multiprocessing import active_children
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from lightning_cnn.errors import KilledError, StorageError
from lightning_cnn.resume.signals import Interrupted, handling_signals, received
from lightning_cnn.resume.workers import each


def square(piece: int) -> int:
    """Notes who does it; the first to do 3 is killed, and 7 and 8 are refused."""
    Path(f"{piece}-{os.getpid()}").touch()
    if piece == 3 and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if piece == 7:
        raise StorageError("the disk is full")
    if piece == 8:
        raise ValueError("eight")
    return piece**2


def die(piece: int) -> None:
    """Ends as a training does that is told to stop."""
    raise Interrupted(signal.SIGTERM)


class TwoWordsError(Exception):
    """Can't be unpickled, as many of libraries can't."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def unsendable(piece: int) -> Any:
    """Raises or returns what can't go to another process."""
    Path(f"{piece}-{os.getpid()}").touch()
    if piece == 1:
        raise TwoWordsError("out of", "luck")
    if piece == 2:
        error = ValueError("holds a lock")
        error.lock = Lock()  # type: ignore[attr-defined]
        raise error
    return Lock()


def wait(piece: int) -> None:
    """Works until it is told to stop, and then for a moment."""
    Path(f"began_{piece}").touch()
    while not received():
        time.sleep(0.01)
    time.sleep(0.2)
    Path(f"ended_{piece}").touch()


def test_a_piece_whose_process_is_killed_goes_to_another() -> None:
    found = dict(each(square, range(7), 2))
    assert found == {piece: piece**2 for piece in range(7)}
    assert len([*Path().glob("3-*")]) == 2 and all(len([*Path().glob(f"{n}-*")]) == 1 for n in (0, 1, 2, 4, 5, 6))
    assert not active_children()


def test_an_error_is_that_of_the_piece() -> None:
    with pytest.raises(StorageError, match="the disk is full") as raised:
        dict(each(square, [1, 7, 2], 2))
    assert type(raised.value) is StorageError and not hasattr(raised.value, "__notes__")
    with pytest.raises(ValueError, match="eight") as crash:
        dict(each(square, [1, 8, 2], 2))
    assert "in square" in crash.value.__notes__[0] and not active_children()


@pytest.mark.parametrize(
    ("piece", "kind", "message"),
    [
        (1, RuntimeError, "TwoWordsError: out of luck"),
        (2, RuntimeError, "ValueError: holds a lock"),
        (3, TypeError, "cannot pickle"),
    ],
)
def test_what_can_not_be_sent_is_said(piece: int, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as raised:
        dict(each(unsendable, [piece], 2))
    assert raised.type is kind and message in str(raised.value) and "_work" in raised.value.__notes__[0]
    assert len([*Path().glob(f"{piece}-*")]) == 1 and not active_children()


def test_without_processes_there_is_an_end() -> None:
    with pytest.raises(KilledError, match="a process was stopped by SIGTERM: use fewer `jobs`"):
        dict(each(die, [1, 2, 3], 2))


def test_a_signal_to_the_parent_is_one_to_all() -> None:
    def strike() -> None:
        while len([*Path().glob("began_*")]) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=strike, daemon=True).start()
    with pytest.raises(Interrupted), handling_signals():
        dict(each(wait, [1, 2], 2))
    assert Path("ended_1").exists() and Path("ended_2").exists() and not active_children()
