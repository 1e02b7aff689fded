"""Signals and the processes that read ahead."""

import os
import signal
import subprocess
import time

import psutil
import pytest
import torch

from lightning_cnn.datamodules.batches import TensorImages, batch_loader


@pytest.mark.parametrize("name", ["TERM", "USR1", "USR2", "INT"])
def test_a_reader_overlooks_a_signal_that_is_not_its_parents(name: str) -> None:
    """Slurm sends signals to all processes of a job."""
    images = TensorImages(torch.zeros(20, 1, 2, 2, dtype=torch.uint8), torch.arange(20))
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
