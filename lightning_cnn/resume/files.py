"""Files that appear whole or not at all, and what to say where the disk refuses them. Imports no torch."""

import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any, BinaryIO

from lightning_cnn.errors import StorageError

TEMPORARY = ".tmp-"  # within the name of a file that is being written
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (*FULL, errno.EROFS, errno.EIO, errno.ESTALE)  # errors of the disk itself, whatever was to be written
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on the size of a file is reached",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an input/output error",
    errno.EACCES: "permission denied",
    errno.ENOENT: "its folder is gone",
}


@contextmanager
def replacing(
    path: Path, hint: str = "", size: Callable[[], int] | None = None, sync: bool = True
) -> Iterator[BinaryIO]:
    """Opens a new file beside the target, which takes the target's place when the block ends.

    A reader sees the old file or the new one, never a half, also after a crash or a power cut. When the block raises,
    the old file stays as it was and the new one vanishes. The new file is made under a fresh name and follows no link.
    Devices and pipes, such as `/dev/stdout`, are written to directly.

    Args:
        path: The target. Its folder must exist.
        hint: What else the user can do, such as "choose another place with `output`".
        size: Bytes of the whole file, for the message; called only where the disk is full.
        sync: Whether to wait until the disk has the file. Without it a power cut may lose it.

    Yields:
        The binary file. `Path(file.name)` is its path for writers that need one.

    Raises:
        StorageError: If the file can't be written.
    """
    made = path.parent / f"{path.name[:60]}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
    file: _File | None = None
    is_special = False
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        is_special = path.exists() and not path.is_file()
        if is_special:
            file = _File(path, os.O_WRONLY)
        else:
            file = _File(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        with BufferedWriter(file) as buffer:
            yield buffer
            buffer.flush()
            if file.error is not None:  # the writer has overlooked it
                raise file.error
            if sync and not is_special:
                _sync(file.fileno())
        if not is_special:
            made.replace(path)
            if sync:
                _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            made.unlink()
        # some writers hide the error of the disk behind one of their own
        cause = file.error if file is not None and file.error and isinstance(error, Exception) else error
        if isinstance(cause, OSError) and cause.errno and cause.filename in (None, str(made), str(path)):
            needed = size() if size is not None and cause.errno in FULL else None
            raise storage_error(path, cause, hint, needed) from None
        raise


def replace_text(path: Path, text: str, hint: str = "", sync: bool = True) -> None:
    """Writes a text file in one step, as UTF-8.

    Args:
        path: The file. Its folder must exist.
        text: The whole content.
        hint: As of `replacing`.
        sync: As of `replacing`.

    Raises:
        StorageError: If it can't be written.
    """
    replace_bytes(path, text.encode(), hint, sync)


def replace_bytes(path: Path, content: bytes, hint: str = "", sync: bool = True) -> None:
    """Writes a file in one step.

    Args:
        path: The file. Its folder must exist.
        content: The whole content.
        hint: As of `replacing`.
        sync: As of `replacing`.

    Raises:
        StorageError: If it can't be written.
    """
    with replacing(path, hint, lambda: len(content), sync) as file:
        file.write(content)


@contextmanager
def storing(path: Path, hint: str = "", verb: str = "write") -> Iterator[None]:
    """Turns what the disk refuses in the block into a `StorageError` that names a file or folder.

    Args:
        path: What is written or made in the block.
        hint: What else the user can do.
        verb: What is tried, `write` or `make`.

    Raises:
        StorageError: If the block raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(path, error, hint, verb=verb) from None


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Turns errors of the disk, which other libraries raise in the block, into a `StorageError`.

    Other errors of the system, such as a file of data that is missing, stay as they are.

    Args:
        folder: Where they write.

    Raises:
        StorageError: If the disk is full, read-only or broken, or the folder is gone.
    """
    try:
        yield
    except OSError as error:
        is_gone = error.errno == errno.ENOENT and not folder.is_dir()
        if error.errno not in REFUSED and not is_gone:
            raise
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else folder / "*"
        raise storage_error(path, error) from None


def make_folder(path: Path, hint: str = "", parents: bool = True) -> None:
    """Makes a folder, unless it exists.

    Args:
        path: The folder.
        hint: What else the user can do.
        parents: Whether to make the folders above, too. A run folder that somebody removed is not made again.

    Raises:
        StorageError: If it can't be made.
    """
    with storing(path, hint, "make"):
        path.mkdir(parents=parents, exist_ok=True)


def check_writable(path: Path, hint: str = "") -> None:
    """Finds out before long work whether a file can be written at its end; nothing is made.

    Args:
        path: The file. Folders above it may be missing.
        hint: What else the user can do.

    Raises:
        StorageError: If it is a folder, or its folder can't be made or written to.
    """
    with storing(path, hint):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.exists() or path.is_file():  # others, such as /dev/stdout, are written to directly
            above = next(folder for folder in path.absolute().parents if folder.exists())
            tempfile.TemporaryFile(dir=above).close()


def storage_error(
    path: Path, error: OSError, hint: str = "", needed: int | None = None, verb: str = "write"
) -> StorageError:
    """What the disk refused, in one line.

    Args:
        path: The file or folder that was to be written.
        error: What the system said.
        hint: What else the user can do.
        needed: Bytes that the file needs, where that is known.
        verb: What was tried, `write` or `make`.
    """
    reason = REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
    advice = [hint] if hint else []
    if error.errno in FULL:
        advice.insert(0, "make room" if error.errno != errno.EFBIG else "raise the limit (`ulimit -f`)")
        sizes = [f"{size_text(needed)} needed"] if needed else []
        if error.errno == errno.ENOSPC and (free := _free(path)):
            sizes.append(free)
        reason += f": {', '.join(sizes)}" if sizes else ""
    end = f": {', or '.join(advice)}" if advice else ""
    return StorageError(f"can't {verb} {path} ({reason}){end}")


class _File(FileIO):
    """Notes the first error of the disk: libraries turn it into errors that no longer say what it was."""

    def __init__(self, path: Path, flags: int) -> None:
        self.error: OSError | None = None
        super().__init__(str(path), "w", opener=lambda name, _: os.open(name, flags | os.O_CLOEXEC, 0o666))

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.error = self.error or error
            raise


def _free(path: Path) -> str | None:
    """What is left on the disk of a file, in words."""
    folder = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
    try:
        disk = os.statvfs(folder or "/")
    except OSError:
        return None
    if disk.f_files and not disk.f_favail:
        return "no inode is left"
    return f"{size_text(disk.f_bavail * disk.f_frsize)} free"


def size_text(count: int) -> str:
    """A number of bytes for people, such as `3.2 MB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one may write into a folder that one may not list
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't
            raise
