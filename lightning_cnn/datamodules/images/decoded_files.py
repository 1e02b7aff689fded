"""Decoded images, kept in files of the user's own, so that another start does not decode them once more.

Each set of images is one file, `$XDG_CACHE_HOME/lightning_cnn/images/<what it holds>.images`: the pixels, and nothing
else. It is made under another name and then renamed. Without it nothing is lost but time.
"""

import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import __version__ as pillow
from torch import Tensor

from lightning_cnn.datamodules.batches import Mapped
from lightning_cnn.datamodules.images.decoding import cores, decode, takes_long
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.user_folders import is_private, user_folder

FORMAT = 1
NAME = re.compile(r"[0-9a-f]{32}\.images(\..*)?")  # those of files that lie here, finished or not
DAY = 86_400  # seconds; an unfinished file of that age is one of a process that was killed
SHARE = 0.5  # of the disk's free memory, with what lies here, that they may take together


class DecodedFile:
    """The file of some images, which is there or may be made.

    Which one it is follows from how the images are decoded, and from the path, size and time of change of each file: a
    file that has changed is decoded anew. (One that was changed and got its former size and time back is not noticed.)

    Args:
        paths: The image files, in the order of the set.
        how: How they are decoded, as plain data.
        shape: Of the images, `(channels, height, width)`.

    Raises:
        OSError: If a file can't be looked at.
        RuntimeError: If the user has no home.
    """

    def __init__(self, paths: Sequence[str], how: Any, shape: tuple[int, ...]) -> None:
        relative = [] if all(path.startswith(os.sep) for path in paths) else [os.getcwd()]
        digest = hashlib.blake2b(json.dumps([FORMAT, pillow, how, shape, relative]).encode(), digest_size=16)
        for path in paths:
            facts = os.stat(path)
            digest.update(f"{path}\0{facts.st_size} {facts.st_mtime_ns}\0".encode(errors="surrogateescape"))
        self.shape = (len(paths), *shape)
        self.folder = user_folder("XDG_CACHE_HOME", ".cache") / "images"
        self.path = self.folder / f"{digest.hexdigest()}.images"

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return int(np.prod(self.shape, dtype=np.int64))

    def is_there(self) -> bool:
        """Whether it is finished, and nobody else can have written it."""
        with suppress(OSError):
            facts = os.lstat(self.path)
            return facts.st_size == self.size and is_private(facts) and is_private(os.lstat(self.folder))
        return False

    def read(self) -> Tensor:
        """The images, uint8 `(n, channels, height, width)`: in memory that processes with the same images share."""
        pixels = np.memmap(self.path, np.uint8, "c", shape=self.shape)
        if hasattr(mmap, "MADV_WILLNEED"):
            pixels._mmap.madvise(mmap.MADV_WILLNEED)  # type: ignore[attr-defined]
        self._note_use()
        return torch.from_numpy(pixels)

    def mapped(self) -> Mapped:
        """The images where they are, of which a batch is read when it is needed."""
        self._note_use()
        return Mapped(self.path, self.shape)

    def make(self, fill: Callable[[NDArray[np.uint8]], bool]) -> bool:
        """Makes the file where there is room for it; sets that have not been used for longest make way.

        Args:
            fill: Writes the images into an array `(n, channels, height, width)`; whether it has written all.

        Returns:
            Whether it is there.
        """
        with suppress(OSError, StorageError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not is_private(os.lstat(self.folder)) or not self._make_room():
                return False
            handle, name = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.folder)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(handle, 0, self.size)
                else:
                    os.truncate(handle, self.size)
                pixels = np.memmap(name, np.uint8, "r+", shape=self.shape)
                if fill(pixels):
                    pixels.flush()  # to the disk: a power failure must not leave a file of zeros under the final name
                    os.fsync(handle)
                    os.replace(name, self.path)
                    return True
            finally:
                os.close(handle)
                Path(name).unlink(missing_ok=True)
        return False

    def _make_room(self) -> bool:
        """Removes the sets used longest ago where this one would take too much; whether it has room then."""
        files = []
        for path in self.folder.iterdir():
            with suppress(OSError):
                facts = os.lstat(path)
                if not NAME.fullmatch(path.name) or not is_private(facts):
                    continue
                if path.suffix != ".images" and time.time() - facts.st_mtime > DAY:
                    path.unlink(missing_ok=True)
                else:
                    files.append((facts.st_mtime, facts.st_size, path))
        held = sum(size for _, size, _ in files)
        limit = SHARE * (shutil.disk_usage(self.folder).free + held)
        if self.size > limit:
            return False
        for _, size, path in sorted(files):
            if held + self.size <= limit:
                break
            path.unlink(missing_ok=True)
            held -= size
        return True

    def _note_use(self) -> None:
        with suppress(OSError):
            os.utime(self.path)


def read_decoded(
    paths: Sequence[str],
    read: Callable[[str], Tensor],
    shape: tuple[int, ...],
    is_right: Callable[[Tensor], bool] = lambda images: True,
) -> Tensor:
    """All of some images, decoded, or from where they have been kept.

    Args:
        paths: The files.
        read: Decodes one to uint8 of the shape; importable by name.
        shape: `(channels, height, width)`.
        is_right: Whether the images are what they must be; if those that were kept are not, they are decoded anew.

    Returns:
        uint8 `(n, channels, height, width)`.

    Raises:
        UserError: For the first image that can't be decoded.
    """
    kept = None
    if takes_long(paths):
        with suppress(OSError, RuntimeError):
            kept = DecodedFile(paths, f"{read.__module__}.{read.__qualname__}", shape)
            if kept.is_there() and is_right(images := kept.read()):
                return images
    images = torch.empty(len(paths), *shape, dtype=torch.uint8)
    for positions, decoded, faults in decode(paths, read, int(np.prod(shape)), min(cores(), 8)):
        if faults:
            raise UserError(faults[0])
        images[positions] = decoded
    if kept is not None:
        kept.make(lambda array: torch.from_numpy(array).copy_(images) is not None)
    return images
