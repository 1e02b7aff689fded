"""Processes that want one run folder at the same moment, again and again: how many get it?

`python racing.py KIND FILE_SYSTEM RACES` prints the number of processes that got in, for each race. It imports once and
forks the contenders. KIND is `resume` (of one run) or `create` (with one `LIGHTNING_CNN_RUN`). FILE_SYSTEM is `local`,
`lockless` (no `flock`) or `cluster` (no `flock`, each contender on a machine of its own, a server whose clock lags).
"""

import errno
import fcntl
import json
import multiprocessing
import os
import random
import sys
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

from lightning_cnn.errors import UserError
from lightning_cnn.resume import heartbeat
from lightning_cnn.tracking.run import RunFolder

CONTENDERS = 3
LAG = 400.0  # seconds by which the clock of the server lags: more than the life of a lease


def without_flock() -> None:
    """From here on this process has a file system without `flock`."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    fcntl.flock = refuse


def with_lagging_server(lag: float = LAG) -> None:
    """From here on the file system of this process dates files by a clock that lags."""
    real = os.utime

    def lagging(path: Any, times: tuple[float, float] | None = None) -> None:
        real(path, times or (time.time() - lag, time.time() - lag))

    os.utime = lagging  # type: ignore[assignment]


def on_machine(name: str) -> None:
    """From here on this process is on another machine, with a kernel and process numbers of its own."""
    real = heartbeat.Holder.here

    def here(flock: bool) -> heartbeat.Holder:
        return replace(real(flock), host=name, kernel=name, pids=0)

    heartbeat.Holder.here = here  # type: ignore[method-assign, assignment]


def _contend(kind: str, folder: Path, system: str, barrier: Barrier, over: Event, answers: Any, dies: bool) -> None:
    if system != "local":
        without_flock()
    if system == "cluster":
        with_lagging_server()
        on_machine(f"machine{os.getpid()}")
    barrier.wait()
    time.sleep(random.random() * 0.002)
    try:
        if kind == "resume":
            run = RunFolder.open(folder)
            run.go_on("")
        else:
            run = RunFolder.create(Path("."), "race", "", 0, folder)
        answers.put(f"in {os.getpid()}")
        over.wait()
        if not dies:
            run.finish("interrupted")
    except UserError as error:
        answers.put(str(error))
    answers.close()
    answers.join_thread()
    os._exit(0)  # as a killed process, whose lock file stays


def race(kind: str, system: str, folder: Path, dies: bool) -> list[str]:
    """One race; what each contender says. The winner ends in order, or dies."""
    context = multiprocessing.get_context("fork")
    barrier, over, answers = context.Barrier(CONTENDERS), context.Event(), context.Queue()
    processes = [
        context.Process(target=_contend, args=(kind, folder, system, barrier, over, answers, dies))
        for _ in range(CONTENDERS)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    over.set()
    for process in processes:
        process.join()
    return found


def main(kind: str, system: str, races: int) -> None:
    """Runs the races in the working directory."""
    random.seed(0)
    folder = Path("run")
    if kind == "resume":
        RunFolder.create(Path("."), "race", "", 0, folder).finish("interrupted")
    for number in range(races):
        if kind == "create":
            folder = Path(f"run_{number}")
        for path in folder.glob(".lock-*"):  # of one that died: its lease has run out
            past = time.time() - LAG - heartbeat.TIMEOUT_SECONDS - 1
            os.utime(path, (past, past))
        said = race(kind, system, folder, dies=number % 2 == 1)
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
