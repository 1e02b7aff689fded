"""The folders in which this user has made runs, in a file of the user's own. Imports no torch."""

import os
from contextlib import suppress
from pathlib import Path

from lightning_cnn.errors import StorageError
from lightning_cnn.resume.files import replacing
from lightning_cnn.user_folders import is_private, user_folder


def remembered_runs_dirs() -> list[str]:
    """The folders, as absolute paths; none where somebody else may have written the file."""
    with suppress(OSError, RuntimeError):  # there is no file, or no home
        path = _path()
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if all(is_private(each) for each in (os.fstat(file.fileno()), path.parent.stat())):
                return [os.fsdecode(line) for line in file.read().split(b"\n") if line.startswith(b"/")]
    return []


def remember_runs_dir(folder: Path) -> None:
    """Adds a folder, but none that holds the user's home or the working directory, where other things lie, too.

    Where the file can't be written, nothing happens.

    Args:
        folder: The folder, without links.
    """
    with suppress(OSError, RuntimeError, StorageError):
        holds = any(place.resolve().is_relative_to(folder) for place in (Path.home(), Path.cwd()))
        if holds or "\n" in str(folder):
            return
        path = _path()
        lines = [*remembered_runs_dirs(), str(folder)]
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(b"".join(os.fsencode(line) + b"\n" for line in lines))


def _path() -> Path:
    return user_folder("XDG_STATE_HOME", ".local/state") / "runs_dirs"
