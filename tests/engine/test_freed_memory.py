import os
import platform
import subprocess
import sys

import pytest

from lightning_cnn.engine.freed_memory import keep_freed_memory

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
# how many pages the system has to give for a tensor of 100 MB, after others of its size have been freed: the fewest of
# ten, as the first few may each find another place
NEXT_TENSOR = """
import resource
import torch
from lightning_cnn.engine.trainer import SILENT, make_trainer

if {makes_trainer}:
    make_trainer(accelerator="cpu", **SILENT)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(faults() for _ in range(10)))
"""


def faults_of_next_tensor(makes_trainer: bool, **environment: str) -> int:
    code = NEXT_TENSOR.format(makes_trainer=makes_trainer)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@GLIBC
def test_a_trainer_on_the_cpu_keeps_freed_memory() -> None:
    assert faults_of_next_tensor(makes_trainer=False) >= 40  # 48 of 2 MiB, or 24,000 of 4 KiB
    assert faults_of_next_tensor(makes_trainer=True) < 10


@GLIBC
def test_settings_of_malloc_in_the_environment_are_left_alone() -> None:
    assert faults_of_next_tensor(makes_trainer=True, MALLOC_MMAP_MAX_="65536") >= 40


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", None)
    assert keep_freed_memory() is False
