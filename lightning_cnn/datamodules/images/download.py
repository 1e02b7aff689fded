"""The files of a data set: downloaded or unpacked into its folder, everything or nothing, or why not."""

import contextlib
import http.client
import socket
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.utils import calculate_md5

from lightning_cnn.errors import UserError

SECONDS = 20  # a dead network must not hang
ARCHIVES = (".gz",)


class Missing(NamedTuple):
    """A data set that is not there.

    Attributes:
        name: Name of the data set.
        what: What was looked for and not found.
        cure: What the user can do.
    """

    name: str
    what: str
    cure: str

    def error(self, reason: str) -> UserError:
        """The error, with the reason why the data could not be had."""
        return UserError(
            f"{self.name} not found: {self.what} ({reason}); {self.cure}, or try `data` Digits, which needs no download"
        )

    def download(self, make: Callable[[str], object], root: Path, is_allowed: bool) -> None:
        """Downloads the files where that is allowed.

        Args:
            make: Downloads the files into the folder that it is given.
            root: Where they belong.
            is_allowed: Whether they may be downloaded.

        Raises:
            UserError: If the files can't be had.
        """
        failure = fetch(make, root) if is_allowed else "`data.download` false"
        if failure is not None:
            raise self.error(f"the download failed: {failure}" if is_allowed else failure)


def not_official(file: Path, found: str, expected: str) -> UserError:
    """The error of a file that differs from the official one.

    Args:
        file: The file.
        found: What it is known by, such as its md5.
        expected: The same of the official file.
    """
    return UserError(
        f"{file} is not the official file ({found}, expected {expected}): replace it, or delete it to download it "
        "anew, or accept it with `data.check_md5` false"
    )


def check_md5(file: Path, expected: str) -> None:
    """Refuses a file that differs from the official one.

    Args:
        file: The file.
        expected: The md5 of the official one.

    Raises:
        UserError: If it differs.
        OSError: If it can't be read.
    """
    if (found := calculate_md5(str(file))) != expected:
        raise not_official(file, f"md5 {found}", f"md5 {expected}")


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
