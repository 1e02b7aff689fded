"""Decodes many image files: one after the other, or in several processes where that saves time."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_cnn.datamodules.batches import batch_loader
from lightning_cnn.errors import UserError

# measured on one core with JPEG files of 1 to 240 kB: so much for each file, and so much for each of its bytes
SECONDS_A_FILE = 2e-4
SECONDS_A_BYTE = 4.5e-8
# where a new process has to import torch first, less work than this is done before it is there
WORTHWHILE = 5.0
# what passes from process to process at once: shared memory is scarce in containers
CHUNK_BYTES = 2**20

Attempts = tuple[Tensor, Tensor, list[str]]


def decode(
    paths: Sequence[Any],
    read: Callable[[Any], Tensor],
    image_bytes: int,
    workers: int,
    join: Callable[[list[Tensor]], Tensor] = torch.stack,
) -> Iterator[Attempts]:
    """Decodes image files in their order, chunk by chunk.

    Threads would not do: Pillow holds Python's lock for most of the work on a small image, and two of them took twice
    the time of one.

    Args:
        paths: The files, or what else `read` takes.
        read: Decodes one, to uint8 `(channels, height, width)`.
        image_bytes: Memory of a decoded image.
        workers: Processes to use at most, where it is worthwhile.
        join: Makes one tensor of those that `read` returned.

    Yields:
        The positions of images that could be decoded, int64 `(n,)`; these, as `join` returns them, usually uint8
        `(n, channels, height, width)`; and what is wrong with each of the others.
    """
    chunks = torch.arange(len(paths)).split(max(1, min(256, CHUNK_BYTES // image_bytes)))
    count = workers if takes_long(paths) else 0
    # a generator of its own: otherwise it would depend on the files how the training's own draws begin
    yield from batch_loader(_Attempts(paths, read, join), chunks, count, generator=torch.Generator())  # type: ignore[arg-type]


def takes_long(paths: Sequence[Any]) -> bool:
    """Whether decoding takes long enough to do something about it.

    Args:
        paths: The files, or what else is decoded.
    """
    step = max(1, len(paths) // 100)  # the size is estimated from a hundred files
    size = step * sum(os.path.getsize(path) for path in paths[::step] if isinstance(path, str) and os.path.exists(path))
    return SECONDS_A_FILE * len(paths) + SECONDS_A_BYTE * size > WORTHWHILE


def cores() -> int:
    """Cores that this process may use: on a shared machine fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Attempts(Dataset[Attempts]):
    """Decodes what can be decoded of a chunk."""

    def __init__(
        self, paths: Sequence[Any], read: Callable[[Any], Tensor], join: Callable[[list[Tensor]], Tensor]
    ) -> None:
        self.paths = paths
        self.read = read
        self.join = join

    def __getitem__(self, positions: Tensor) -> Attempts:
        good, images, faults = [], [], []
        for position in positions.tolist():
            try:
                images.append(self.read(self.paths[position]))
                good.append(position)
            except UserError as error:
                faults.append(str(error))
        return torch.tensor(good, dtype=torch.int64), self.join(images) if images else torch.empty(0), faults
