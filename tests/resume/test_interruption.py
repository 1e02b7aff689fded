"""Signals and the processes that read ahead."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context

import psutil
import pytest
import torch

from lightning_cnn.datamodules.batches import Images, batch_loader
from lightning_cnn.resume.signals import (
    SIGNALS,
    Interrupted,
    blocking_signals,
    defer_signals,
    handling_signals,
    received,
)

LISTENER = """
import os, sys, time
from lightning_cnn.resume.signals import handling_signals, received
print("began", flush=True)
sys.stdin.readline()
os.environ["LOCAL_RANK"] = "0"
with handling_signals():
    print(received(), flush=True)
    sys.stdin.readline()
    print("went on", flush=True)
"""


def test_a_process_that_does_not_listen_yet_gets_its_signals_later() -> None:
    with blocking_signals():
        process = subprocess.Popen(
            [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert process.stdin and process.stdout and process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == f"{int(signal.SIGTERM)}\n"
    process.send_signal(signal.SIGINT)  # the first Ctrl-C is one more request, the second an order
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 128 + signal.SIGINT and process.stdout.read() == ""


@pytest.mark.ci
def test_a_reader_overlooks_a_signal_that_is_not_its_parents() -> None:
    """Slurm sends signals to all processes of a job. In a fresh process: TensorBoard starts threads in forked ones."""
    context = get_context("spawn")
    process = context.Process(target=overlook)
    process.start()
    process.join(120)
    assert process.exitcode == 0


def overlook() -> None:
    for name in ("TERM", "USR1", "USR2", "INT"):
        overlook_one(name)


def overlook_one(name: str) -> None:
    images = Images(torch.zeros(20, 1, 2, 2, dtype=torch.uint8), torch.arange(20))
    batches = iter(batch_loader(images, list(torch.arange(20).split(2)), num_workers=1))
    labels = [next(batches)[1]]
    (reader,) = (child for child in psutil.Process().children() if child.pid == batches._workers[0].pid)  # type: ignore[attr-defined]
    subprocess.run(["kill", f"-{name}", str(reader.pid)], check=True)
    time.sleep(0.2)
    labels += [label for _, label in batches]
    assert torch.equal(torch.cat(labels), torch.arange(20))
    os.kill(reader.pid, signal.SIGTERM)
    batches._workers[0].join(10)  # type: ignore[attr-defined]
    assert batches._workers[0].exitcode == 0  # type: ignore[attr-defined]


def test_in_python_a_second_ctrl_c_is_an_exception_and_nothing_is_left() -> None:
    handlers = [signal.getsignal(signum) for signum in SIGNALS]
    with pytest.raises(KeyboardInterrupt), handling_signals(hard=False):
        defer_signals()
        with handling_signals():  # of a training within: the outer one stays
            signal.raise_signal(signal.SIGINT)
        assert received() == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(signum) for signum in SIGNALS] == handlers and not received()
    with pytest.raises(Interrupted), handling_signals(hard=False):  # nothing waits for an order any more
        signal.raise_signal(signal.SIGINT)


def test_another_thread_leaves_nothing() -> None:
    def train() -> None:
        with handling_signals():
            defer_signals()

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    with pytest.raises(Interrupted), handling_signals():
        signal.raise_signal(signal.SIGTERM)
