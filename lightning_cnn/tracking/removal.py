"""Removes runs, and says how much of the disk they use. Imports neither torch nor Lightning."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lightning_cnn.resume.files import storing
from lightning_cnn.resume.run_lock import RunLock
from lightning_cnn.tracking.record import RECORD
from lightning_cnn.tracking.run import RunFolder


def disk_used(folder: Path) -> int:
    """Bytes of the files in a folder, to any depth. Links do not count, and hard links count once.

    Args:
        folder: The folder; what can't be read in it is not counted.
    """
    found: dict[tuple[int, int], int] = {}
    folders = [os.fspath(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_symlink():
                    with suppress(OSError):  # removed at this moment
                        facts = entry.stat(follow_symlinks=False)
                        found[facts.st_dev, facts.st_ino] = facts.st_size
    return sum(found.values())


def remove_runs(runs: Sequence[RunFolder]) -> int:
    """Removes the folders of some runs; of a run that is a link the link alone.

    Args:
        runs: The runs.

    Returns:
        Bytes that are free now.

    Raises:
        UserError: If one is being trained; then all stay.
        StorageError: If a folder can't be removed.
    """
    for run in runs:
        run.check_free()
    return sum(map(_remove, runs))


def _remove(run: RunFolder) -> int:
    folder = run.folder
    if folder.is_symlink():
        with storing(folder, verb="remove"):
            folder.unlink()
        return 0
    freed, lock = disk_used(folder), RunLock.take(folder)
    try:
        with storing(folder, verb="remove"):
            (folder / RECORD).unlink(missing_ok=True)  # first: what may be left is no run
            shutil.rmtree(folder)
    finally:
        lock.release()
    return freed
