"""Who has started this process, and how many others: srun, torchrun, or neither. Imports no torch."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning_cnn.errors import UserError


@dataclass(frozen=True)
class Launcher:
    """What has started the processes of a training.

    Attributes:
        name: `srun` of Slurm, or `torchrun`.
        processes: How many it has started on each machine.
        machines: On how many machines.
    """

    name: Literal["srun", "torchrun"]
    processes: int
    machines: int


def launcher() -> Launcher | None:
    """What has started this process together with others; None where it is alone, or Lightning has started it.

    Raises:
        UserError: If there are not equally many processes on all machines, or the first machine can't be found.
    """
    given = os.environ
    if "TORCHELASTIC_RUN_ID" in given:
        found = Launcher("torchrun", int(given["LOCAL_WORLD_SIZE"]), int(given["GROUP_WORLD_SIZE"]))
        equal, option = int(given["WORLD_SIZE"]) == found.processes * found.machines, "--nproc_per_node"
    elif "SLURM_STEP_ID" not in given or "LOCAL_RANK" in given or given["SLURM_STEP_NUM_TASKS"] == "1":
        return None
    else:
        each = given["SLURM_STEP_TASKS_PER_NODE"]  # such as 4(x2), or 3,1
        found = Launcher("srun", int(re.findall(r"\d+", each)[0]), int(given["SLURM_STEP_NUM_NODES"]))
        equal, option = re.fullmatch(r"\d+(\(x\d+\))?", each) is not None, "--ntasks-per-node"
        given.setdefault("MASTER_ADDR", _first_of(given["SLURM_STEP_NODELIST"]))
    if not equal:
        raise UserError(f"{found.name} started different numbers of processes on the machines: use {option}")
    if found.machines > 1:
        _check_name(given["MASTER_ADDR"])
    return found


def check_numbers(trainer: Mapping[str, Any], processes: int, machines: int, *by: str) -> None:
    """Refuses numbers of devices and machines other than those of the processes that are started anyway.

    Args:
        trainer: The arguments of the trainer.
        processes: How many processes there are on a machine.
        machines: How many machines there are.
        by: What says the one and the other.

    Raises:
        UserError: If they differ.
    """
    numbers = (("devices", "auto", processes), ("num_nodes", 1, machines))
    for (name, usual, started), what in zip(numbers, by, strict=True):
        value = trainer[name]
        number = len(value) if isinstance(value, list) else int(value) if str(value).isdigit() else value
        if value != usual and number not in (usual, started):
            raise UserError(f"`trainer.{name}` {value}: remove it, {what} sets it (here {started})")


def is_first_here() -> bool:
    """Whether this process is the first on its machine: it speaks for the others."""
    name = "LOCAL_RANK" if "LOCAL_RANK" in os.environ else "SLURM_LOCALID"
    return os.environ.get(name, "0") == "0"


def is_first() -> bool:
    """Whether this process is the first of all, on whatever machine: it has the run folder."""
    return not any(int(os.environ.get(name) or 0) for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def _first_of(nodes: str) -> str:
    """The first name of a list of Slurm, such as `gpu[03-05,9],login1`."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes).split(",")[0]


def _check_name(first: str) -> None:
    try:
        socket.getaddrinfo(first, None)
    except OSError:
        here = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        raise UserError(
            f"{here} can't find the first machine, {first}, by its name: add it to DNS or to /etc/hosts on all "
            "machines, or set MASTER_ADDR to its IP address"
        ) from None
