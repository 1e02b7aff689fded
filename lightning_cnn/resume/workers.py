"""Processes that share pieces of work: each gets a piece when it is ready for one, and all end with their parent."""

import logging
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

from lightning_cnn import notes
from lightning_cnn.errors import KilledError, UserError
from lightning_cnn.plain_text import PlainStream, plain_output
from lightning_cnn.regular_files import without_links
from lightning_cnn.resume.signals import deferring_signals, handling_signals, stopping_at_once

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass
class Worker:
    """A process that has been started.

    Attributes:
        process: The process.
        line: This process's end of the line to it.
        piece: The piece of work that it has.
    """

    process: SpawnProcess
    line: Connection
    piece: Any = None


def each(
    function: Callable[[Piece], Result],
    pieces: Sequence[Piece],
    count: int,
    within: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Generator[tuple[Piece, Result], None, None]:
    """Does pieces of work in so many processes, and gives each with its result when it is done.

    A process that is told to stop, or killed, leaves its piece to the others. When the generator is closed before its
    end, by an exception or by a signal to this process, it tells the processes to stop and waits until they have.

    Args:
        function: What to do, importable by name. Signals are noted where it does not allow them to stop it at once.
        pieces: Its arguments.
        count: Number of processes.
        within: Makes a block in which each process does all its pieces, importable by name.

    Raises:
        KilledError: If no process is left.
        Exception: What the function raises; a RuntimeError with its words where it can't be pickled.
    """
    waiting, left = [*pieces], len(pieces)
    idle: list[Worker] = []
    code = 0
    with started(partial(_work, function, within), count) as all_workers:
        workers = [*all_workers]
        while left:
            while idle and waiting:
                worker = idle.pop()
                worker.piece = waiting.pop(0)
                with suppress(OSError):  # it is gone, which shows below
                    worker.line.send(worker.piece)
            if not workers:
                raise KilledError(f"a process {how_it_ended(code)}: use fewer `jobs`")
            ready = wait([worker.line for worker in workers])
            for worker in [worker for worker in workers if worker.line in ready]:
                try:
                    error, result = worker.line.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    code = int(worker.process.exitcode or 0)
                    workers.remove(worker)
                    idle = [other for other in idle if other is not worker]
                    waiting[:0] = [] if worker.piece is None else [worker.piece]
                    continue
                if error is not None:
                    raise error
                idle.append(worker)
                piece, worker.piece = worker.piece, None
                if piece is not None:  # else it has just come to its start
                    left -= 1
                    yield piece, result


@contextmanager
def started(target: Callable[[Connection], None], count: int, devices: Sequence[str] = ()) -> Iterator[list[Worker]]:
    """Starts processes that stop as by SIGTERM when the block ends, or when this process is gone.

    Args:
        target: What each does with its end of the line to this process, importable by name.
        count: Number of processes.
        devices: GPUs, as `CUDA_VISIBLE_DEVICES` names them; each process gets one of them in turn.
    """
    context, work = get_context("spawn"), pickle.dumps(target)
    workers: list[Worker] = []
    try:
        with deferring_signals():  # one that is half started would be forgotten
            for number in range(count):
                ours, theirs = context.Pipe()
                device = devices[number % len(devices)] if devices else None
                process = context.Process(target=_begin, args=(work, theirs, device, notes.conversion()))
                process.start()
                theirs.close()
                workers.append(Worker(process, ours))
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


@contextmanager
def printing_to(path: Path) -> Iterator[None]:
    """What is printed goes to the end of a file, and what Lightning logs, whose handlers keep their first stream."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    shown = (each for logger in loggers for each in logger.handlers if type(each) is logging.StreamHandler)
    streams = {handler: handler.stream for handler in shown if not getattr(handler.stream, "closed", False)}
    with open(path, "a", encoding="utf-8", opener=without_links) as file:
        log: Any = PlainStream(file)
        with redirect_stdout(log), redirect_stderr(log):
            try:
                for handler in streams:
                    handler.setStream(log)
                yield
            finally:
                for handler, stream in streams.items():
                    handler.setStream(stream)


def _begin(work: bytes, line: Connection, device: str | None, convert: Callable[[str], str] | None) -> None:
    """What a process does first; `convert` is for the lines that it prints (`lightning_cnn.notes`).

    What it works at is imported, with torch, only when it heeds signals and its GPU is chosen.
    """
    with plain_output(), notes.printed(convert), handling_signals():
        _stop_with_parent()
        if device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        pickle.loads(work)(line)


def _stop_with_parent() -> None:
    """Lets this process stop as by SIGTERM when that which has started it is gone."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def signal_of(code: int) -> int:
    """The signal that has ended a process with this exit code; 0 where it was none."""
    number = -code if code < 0 else code - 128
    return number if number in {int(signum) for signum in signal.Signals} else 0


def how_it_ended(code: int) -> str:
    """How a process has ended, in words."""
    signum = signal_of(code)
    if signum == signal.SIGKILL:
        return "was killed, perhaps for want of memory"
    return f"was stopped by {signal.Signals(signum).name}" if signum else f"ended with code {code}"


def _work(
    function: Callable[[Any], Any], within: Callable[[], AbstractContextManager[object]], line: Connection
) -> None:
    """Does one piece after the other."""
    with deferring_signals(), within():
        answer: tuple[Exception | None, Any] = None, None
        while True:
            try:
                line.send(answer)
                with stopping_at_once():
                    piece = line.recv()
            except (EOFError, OSError):  # the parent needs no more
                return
            try:
                result = function(piece)
                _check_way(result)
                answer = None, result
            except Exception as error:
                answer = _to_send(error), None


def _to_send(error: Exception) -> Exception:
    """An error with its traceback, which the other process does not see; in words where it can't be sent."""
    trace = traceback.format_exc()
    try:
        _check_way(error)
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(error, UserError):
        error.add_note(trace)
    return error


def _check_way(content: object) -> None:
    """Raises what would else be raised when this is sent, or received by the other process."""
    ForkingPickler.loads(ForkingPickler.dumps(content))
