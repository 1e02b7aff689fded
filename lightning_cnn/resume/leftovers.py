"""What may be removed from a run folder: halves of killed processes, and the traces of a run that never began.

Imports no torch.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil

from lightning_cnn.resume.heartbeat import GONE_SECONDS, file_system_time
from lightning_cnn.resume.run_lock import PREFIX

# a file of ours that is being written, with the number of the process: run.json.tmp-123 or run.json.tmp-123-0a1b2c3d
WRITTEN = (
    *(r"run\.json", r"metrics\.csv", r"report\.html", r"data\.sha256", r"\.lock-clock"),
    *(r"(config|train|trial|best)\.yaml", r"(predictions|baselines)\.parquet"),
)
HALF = re.compile(
    rf"([^/]*/({'|'.join(WRITTEN)})|figures/[^/]+\.png|checkpoints/[^/]+\.ckpt)\.tmp-(?P<pid>\d+)(-\w{{8}})?"
)
LOCK = re.compile(re.escape(PREFIX) + r"\d+")
# what a run leaves before its first checkpoint; that of a walk-forward as well
TRACES = (
    *("run.json", "config.yaml", "metrics.csv"),
    *("figures/examples.png", "figures/augmented.png", "figures/lr_finder.png"),
    *("events.out.tfevents.*", "wandb/**/*", "folds/train.yaml", "folds/data.sha256", "folds/*/log.txt"),
)


def is_half(path: Path) -> bool:
    """Whether a name is that of a file of ours that is being written, or of a lock."""
    return bool(_half(path) or LOCK.fullmatch(path.name))


def remove_halves(folder: Path) -> None:
    """Removes the halves that killed processes left behind in a run folder.

    Args:
        folder: A run folder that this process holds.
    """
    for path in (*folder.glob("*"), *folder.glob("checkpoints/*"), *folder.glob("figures/*")):
        found = _half(path)
        if found and not _is_being_written(path, int(found["pid"])):
            path.unlink(missing_ok=True)


def remove_traces(folder: Path) -> bool:
    """Removes what a run has left, unless there is a checkpoint or a file that is none of ours: then all stays.

    Args:
        folder: A run folder that this process holds; its lock stays.

    Returns:
        Whether everything was removed.
    """
    ours = {path for pattern in TRACES for path in folder.glob(pattern)}
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    if any(path.suffix == ".ckpt" or not (path in ours or is_half(path)) for path in files):
        return False
    for path in files:
        if not LOCK.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return True


def _half(path: Path) -> re.Match[str] | None:
    return HALF.fullmatch(f"{path.absolute().parent.name}/{path.name}")


def _is_being_written(path: Path, pid: int) -> bool:
    """Whether another process of this machine, such as `report`, writes a file; numbers of processes come again."""
    with suppress(OSError):
        age = file_system_time(path.parent) - path.stat().st_mtime
        return pid != os.getpid() and psutil.pid_exists(pid) and age < GONE_SECONDS
    return False
