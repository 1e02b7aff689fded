"""Several processes that train together: what they do about signals, and about one that dies or does not answer.

Lightning's own ways are replaced: its handlers of signals wait for the other processes within the handler, where they
may wait for ever, and its observer kills the first process before it can say what happened.
"""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities import rank_zero_only
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not in its list

from lightning_cnn.errors import UserError
from lightning_cnn.resume.lightning_loops import observing

GRACE_SECONDS = 30  # that a process has to notice by itself that another is gone, and to say so
LOOPBACK = "127.0.0.1"
INTERFACE_OF = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # variables with the network interface that a backend uses
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE)


def process_rank() -> int:
    """Which process this is: Lightning reads it from the environment before any process group exists."""
    return int(rank_zero_only.rank)  # type: ignore[attr-defined]


@contextmanager
def on_loopback(trainer: Trainer) -> Iterator[None]:
    """Lets the processes of one machine talk where no other machine hears them.

    By itself the store by which they find each other listens on all addresses of the machine and obeys anyone, and
    gloo and NCCL listen on that of the machine's name. Left as they are: several machines, and torchrun, which has a
    store of its own.

    Args:
        trainer: A new trainer, before it starts other processes.

    Raises:
        UserError: If the port is taken.
    """
    environment = trainer.strategy.cluster_environment if isinstance(trainer.strategy, ParallelStrategy) else None
    if not isinstance(environment, LightningEnvironment | SLURMEnvironment) or trainer.num_nodes > 1:
        yield
        return
    before = {name: os.environ.get(name) for name in (*INTERFACE_OF, "MASTER_ADDR", "MASTER_PORT")}
    for name in INTERFACE_OF:
        os.environ.setdefault(name, "lo" if sys.platform == "linux" else "lo0")
    os.environ["MASTER_ADDR"] = LOOPBACK
    in_this_process = trainer.global_rank == 0 and not distributed.is_initialized()  # as by a finder: all have met
    store = _store(environment.main_port, trainer.world_size) if in_this_process else None
    try:
        yield
    finally:
        del store
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _store(port: int, processes: int) -> TCPStore:
    """The store on the loopback, which torch then finds in this process and makes no other (`multi_tenant`)."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(processes)
    except OSError as error:
        listener.close()
        raise UserError(f"port {port} can't be opened ({error.strerror}): set MASTER_PORT to a free one") from None
    return TCPStore(
        LOOPBACK, port, processes, True, wait_for_workers=False, multi_tenant=True, master_listen_fd=listener.detach()
    )


def is_loss_of_a_process(error: BaseException) -> bool:
    """Whether an error says that another process is gone or does not answer."""
    return isinstance(error, RuntimeError) and bool(LOST.search(str(error)))


_started: list[subprocess.Popen[bytes]] = []  # by this process; those of an earlier training take part in this one


@contextmanager
def watching(report: Callable[[str], None]) -> Iterator[None]:
    """Watches the processes that Lightning starts; where one fails and the first doesn't notice, it ends all.

    It keeps signals from them as long as they don't listen, so that none dies of one alone.

    Args:
        report: Is told what happened, before the end.
    """
    over = threading.Event()

    def start(processes: list[subprocess.Popen[bytes]]) -> None:
        _started[:] = processes
        threading.Thread(target=_watch, args=(processes, over, report), daemon=True).start()

    with observing(start):
        if alive := [process for process in _started if process.poll() is None]:
            start(alive)
        try:
            yield
        finally:
            over.set()


def _watch(processes: list[subprocess.Popen[bytes]], over: threading.Event, report: Callable[[str], None]) -> None:
    while not over.wait(0.5):
        for number, process in enumerate(processes, 1):
            if code := process.poll():
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                failed = f"process {number} of {len(processes) + 1} {how}"
                if over.wait(GRACE_SECONDS):
                    return
                report(failed)
                for each in processes:
                    if each.poll() is None:
                        each.kill()
                os.write(2, f"error: {failed}, and the others did not notice: all are ended\n".encode())
                os._exit(1)
