"""Removes temporary files of killed processes, and the folder of a run that never started.

Imports no torch.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil

from lightning_cnn.resume.heartbeat import TIMEOUT_SECONDS, file_system_time
from lightning_cnn.resume.run_lock import PREFIX

# a file of ours that is being written, with the number of the process: run.json.tmp-123 or run.json.tmp-123-0a1b2c3d
NAMES = (
    *(r"run\.json", r"metrics\.csv", r"report\.html", r"data\.sha256", r"\.lock-clock"),
    *(r"(config|train|trial|best)\.yaml", r"(predictions|baselines)\.parquet"),
)
# a long name is cut where a file is being written
FOLDERS = {"checkpoints": "ckpt", "figures": "png", "tables": "csv"}
INSIDE = "|".join(rf"{folder}/([^/]+\.{ending}|[^/]{{60}})" for folder, ending in FOLDERS.items())
TEMPORARY = re.compile(rf"([^/]*/({'|'.join(NAMES)})|{INSIDE})\.tmp-(?P<pid>\d+)(-\w{{8}})?")
LOCK = re.compile(re.escape(PREFIX) + r"\d+")
# what a run leaves before its first checkpoint; that of a walk-forward as well
BEFORE_FIRST_CHECKPOINT = (
    *("run.json", "config.yaml", "metrics.csv"),
    *("figures/examples.png", "figures/augmented.png", "figures/lr_finder.png"),
    *("events.out.tfevents.*", "wandb/**/*", "folds/train.yaml", "folds/data.sha256", "folds/*/log.txt"),
)


def is_temporary(path: Path) -> bool:
    """Whether a path is a temporary file of ours, or a lock."""
    return bool(_temporary(path) or LOCK.fullmatch(path.name))


def remove_temporary_files(folder: Path) -> None:
    """Removes the temporary files that killed processes left in a run folder.

    Args:
        folder: A run folder that this process holds.
    """
    for path in (path for pattern in ("*", *(f"{name}/*" for name in FOLDERS)) for path in folder.glob(pattern)):
        found = _temporary(path)
        if found and not _is_being_written(path, int(found["pid"])):
            path.unlink(missing_ok=True)


def remove_unstarted_run(folder: Path) -> bool:
    """Removes the files of a run, unless there is a checkpoint or a file that is not ours: then all are kept.

    Args:
        folder: A run folder that this process holds; its lock is kept.

    Returns:
        Whether everything was removed.
    """
    ours = {path for pattern in BEFORE_FIRST_CHECKPOINT for path in folder.glob(pattern)}
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    if any(path.suffix == ".ckpt" or not (path in ours or is_temporary(path)) for path in files):
        return False
    for path in files:
        if not LOCK.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return True


def _temporary(path: Path) -> re.Match[str] | None:
    return TEMPORARY.fullmatch(f"{path.absolute().parent.name}/{path.name}")


def _is_being_written(path: Path, pid: int) -> bool:
    """Whether another process of this machine, such as `report`, writes a file; numbers of processes come again."""
    with suppress(OSError):
        age = file_system_time(path.parent) - path.stat().st_mtime
        return pid != os.getpid() and psutil.pid_exists(pid) and age < TIMEOUT_SECONDS
    return False
