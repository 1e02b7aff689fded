"""Who has started this process, and how many others: srun, torchrun, or neither. Imports no torch."""

import os
from dataclasses import dataclass
from typing import Literal

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
        UserError: If there are not equally many processes on all machines.
    """
    given = os.environ
    if "TORCHELASTIC_RUN_ID" in given:
        return Launcher("torchrun", int(given["LOCAL_WORLD_SIZE"]), int(given["GROUP_WORLD_SIZE"]))
    if "SLURM_STEP_ID" not in given or "LOCAL_RANK" in given:
        return None
    tasks, machines = int(given["SLURM_STEP_NUM_TASKS"]), int(given["SLURM_STEP_NUM_NODES"])
    if tasks == 1:
        return None
    if tasks % machines:
        raise UserError(f"srun has started {tasks} processes on {machines} machines: use --ntasks-per-node")
    return Launcher("srun", tasks // machines, machines)
