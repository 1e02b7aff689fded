"""Fetches a data set into its folder: everything or nothing."""

import contextlib
import http.client
import socket
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

SECONDS = 20  # a dead network must not hang
ARCHIVES = (".gz",)


def fetch(make: Callable[[str], object], root: Path) -> str | None:
    """Lets a function make files in a folder beside, and moves them to their place when all are there.

    Files that are there already stay as they are, and archives that were unpacked are not kept.

    Args:
        make: Makes the files in the folder that it is given, such as by torchvision's download.
        root: Where they belong.

    Returns:
        None when the files are there; otherwise why not, in one line. Then nothing is left behind.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            make(folder)
            _move(Path(folder), root)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError) as error:
        lines = str(error).strip().splitlines()
        return lines[-1] if lines else type(error).__name__
    finally:
        socket.setdefaulttimeout(before)
        for folder_of_ours in made:  # innermost first; a folder with something in it stays
            with contextlib.suppress(OSError):
                folder_of_ours.rmdir()
    return None


def unpack(archive: Path, folder: str) -> None:
    """Unpacks the regular files of a tar archive, none of them outside of a folder.

    Args:
        archive: The archive.
        folder: Where to.

    Raises:
        OSError: If something can't be read or written.
        tarfile.TarError: If the archive is damaged, or names a place outside of the folder.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(folder, [member for member in tar if member.isfile()], filter="data")


def _move(folder: Path, root: Path) -> None:
    for file in sorted(folder.rglob("*")):
        target = root / file.relative_to(folder)
        if file.is_file() and not file.is_symlink() and file.suffix not in ARCHIVES and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
