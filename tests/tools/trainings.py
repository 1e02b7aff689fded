"""Trainings in processes of their own that begin with everything imported, to be killed on the way.

Importing takes most of the time of a short training. So one process imports, has no threads, and forks the others:
multiprocessing's "forkserver". Ranks of a training are started as torchrun starts them.
"""

import faulthandler
import gc
import multiprocessing
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from blank_figures import BLANK, draw_blank

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = ["trainings", "lightning_cnn.cli.train", "lightning_cnn.cli.evaluate", "lightning_cnn.tracking.wandb_run"]
IMPORTED += ["lightning_cnn.datamodules.images.digits", "lightning_cnn.figures.classification", "sklearn.datasets"]
CONTEXT.set_forkserver_preload(IMPORTED)
LIMIT = 500  # seconds after which a training hangs; a machine may be busy
GRACE = 20  # seconds after the failure of a rank in which the others may end, too; then the launcher ends them


@dataclass
class Outcome:
    """How a training ended.

    Attributes:
        codes: Exit code of each rank; a negative one is the number of the signal that killed it.
        hung: Whether it had to be killed after the limit.
        output: All that the ranks wrote.
        seconds: From the start of the verb to the end of the last rank.
        was_struck: Whether a process was there when the signal was sent.
    """

    codes: list[int]
    hung: bool
    output: str
    seconds: float
    was_struck: bool


def train(
    argv: Sequence[str],
    ranks: int = 1,
    signum: int = 0,
    after: float | Path = 0.0,
    to: Sequence[int] | None = None,
    environment: dict[str, str] | None = None,
    limit: float = LIMIT,
    file_size: int = resource.RLIM_INFINITY,
) -> Outcome:
    """Runs a verb in the working directory.

    Args:
        argv: The words behind `lightning-cnn`.
        ranks: Number of processes.
        signum: Signal to send to them; 0 for none.
        after: Seconds between the start of the verb and the signal, or a file to whose writing the signal comes.
        to: Ranks that get it; default all.
        environment: Variables for all of them.
        limit: Seconds after which it counts as hung.
        file_size: Bytes that a file may have, which stands in for a full disk.
    """
    port = str(_free_port())
    begun = CONTEXT.Semaphore(0)
    outputs = [Path(f"output_{rank}.txt") for rank in range(ranks)]
    processes: list[ForkServerProcess] = []
    for rank in range(ranks):
        outputs[rank].unlink(missing_ok=True)
        names = {"WORLD_SIZE": str(ranks), "RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables = {"OMP_NUM_THREADS": "1", BLANK: os.environ.get(BLANK, "")}
        variables |= (environment or {}) | (names if ranks > 1 else {})
        arguments = (list(argv), rank, os.getcwd(), variables, str(outputs[rank]), begun, limit, file_size)
        processes.append(CONTEXT.Process(target=_run, args=arguments, daemon=True))
    for process in processes:
        process.start()
    for _ in processes:
        begun.acquire()
    began, was_struck = time.monotonic(), False
    if signum:
        while any(process.is_alive() for process in processes):
            if after.exists() if isinstance(after, Path) else time.monotonic() - began >= after:
                break
            time.sleep(0.005)
        for rank in range(ranks) if to is None else to:
            if processes[rank].is_alive():
                was_struck = True
                os.kill(processes[rank].pid or 0, signum)
    end = began + limit
    while any(process.is_alive() for process in processes) and time.monotonic() < end:
        if any(process.exitcode for process in processes):
            end = min(end, time.monotonic() + GRACE)
        wait([process.sentinel for process in processes if process.is_alive()], 0.2)
    hung = time.monotonic() - began >= limit
    for process in processes:
        process.kill()
        process.join()
    seconds = time.monotonic() - began
    text = "".join(path.read_text(errors="replace") for path in outputs if path.is_file())
    return Outcome([process.exitcode or 0 for process in processes], hung, text, seconds, was_struck)


def _run(
    argv: list[str],
    rank: int,
    folder: str,
    variables: dict[str, str],
    output: str,
    begun: Any,
    limit: float,
    file_size: int,
) -> None:
    """In the process itself."""
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    gc.freeze()  # what is imported is never garbage
    os.environ.update(variables)
    if os.environ.get(BLANK):
        draw_blank(pytest.MonkeyPatch())
    faulthandler.dump_traceback_later(0.9 * limit, file=2)  # where it hangs

    from pytorch_lightning.utilities import rank_zero_only

    from lightning_cnn.cli import main

    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # Lightning reads it when it is imported
    begun.release()
    sys.exit(main(argv))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
