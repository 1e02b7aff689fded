"""Folders of the user's own, outside of all projects. Imports no torch."""

import os
import stat
from pathlib import Path


def user_folder(variable: str, default: str) -> Path:
    """The folder of this package in one of the user's own; one that is no absolute path does not count.

    Args:
        variable: Of the XDG Base Directory Specification, such as `XDG_STATE_HOME`.
        default: Where that is not set: a path in the user's home.

    Raises:
        RuntimeError: If the user has no home.
    """
    folder = os.environ.get(variable, "")
    return (Path(folder) if os.path.isabs(folder) else Path.home() / default) / "lightning_cnn"


def is_private(found: os.stat_result) -> bool:
    """Whether a file or folder is the user's, and nobody else can write it."""
    regular = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return regular and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
