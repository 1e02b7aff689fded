"""Whole batches by index: the data sets, the order in which they are read, and the loader that joins the two."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler, Subset

from lightning_cnn.errors import UserError, check
from lightning_cnn.resume.signals import obey_parent_only

Batch = tuple[Tensor, Tensor]
AnyBatch = TypeVar("AnyBatch")


@dataclass(frozen=True)
class OnDisk:
    """Images that stay on disk; those of an index are decoded.

    Attributes:
        photos: The image files, or what `read` takes in their place.
        read: Decodes one to uint8 `(channels, height, width)`.
    """

    photos: Sequence[Any]
    read: Callable[[Any], Tensor]

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images `(b, channels, height, width)`."""
        return torch.stack([self.read(self.photos[position]) for position in index.tolist()])


@dataclass(frozen=True)
class Mapped:
    """Images whose pixels are a file: those of an index are copied from there, as from memory.

    Attributes:
        file: The file.
        shape: `(n, channels, height, width)`.
    """

    file: Path
    shape: tuple[int, ...]

    def __getitem__(self, index: Tensor) -> Tensor:
        """Images `(b, channels, height, width)`."""
        return torch.from_numpy(_mapped(self.file, self.shape)[index.numpy()])


@lru_cache(maxsize=8)
def _mapped(file: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The file, once in each process."""
    return np.memmap(file, np.uint8, "r", shape=shape)


class Images(Dataset[Batch]):
    """Labelled images. An index is a tensor of positions, an item a whole batch.

    Args:
        images: uint8, `(n, channels, height, width)`, or the file or files of as many.
        labels: int64, `(n,)`.
        names: What each image is called, such as its file name; default its position.
    """

    def __init__(self, images: Tensor | OnDisk | Mapped, labels: Tensor, names: Sequence[str] | None = None) -> None:
        self.images = images
        self.labels = labels
        self.names = names

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Batch:
        """A batch of images `(b, channels, height, width)` and labels `(b,)`."""
        return self.images[index], self.labels[index]

    def name(self, position: int) -> str:
        """What the image is called."""
        return str(position) if self.names is None else self.names[position]


def moved(dataset: Dataset[Batch], device: torch.device) -> Dataset[Batch]:
    """The data set in the memory of a device; one whose images lie on disk stays there."""
    whole, rows = (dataset.dataset, dataset.indices) if isinstance(dataset, Subset) else (dataset, slice(None))
    if not isinstance(whole, Images) or not isinstance(whole.images, Tensor) or whole.images.device == device:
        return dataset
    names = None if whole.names is None else [whole.name(row) for row in torch.arange(len(whole))[rows].tolist()]
    return Images(whole.images[rows].to(device), whole.labels[rows].to(device), names)


def labels_of(dataset: Dataset[Batch]) -> Tensor | None:
    """The labels of `Images`, or of a part of them, on the CPU; None of other data sets."""
    whole, rows = (dataset.dataset, dataset.indices) if isinstance(dataset, Subset) else (dataset, slice(None))
    return whole.labels[rows].cpu() if isinstance(whole, Images) else None


def classes_of(dataset: Dataset[Batch]) -> Tensor | None:
    """The class of each image, int64 `(n,)`; None where images have none, or several labels."""
    labels = labels_of(dataset)
    return labels if labels is not None and labels.ndim == 1 else None


def image_name(dataset: Dataset[Batch], position: int) -> str:
    """What an image is called, also in a part of a larger data set, as `train` and `val` are.

    Args:
        dataset: `Images`, or a `Subset` of them.
        position: The position of the image in `dataset`.
    """
    if isinstance(dataset, Subset):
        return image_name(dataset.dataset, int(dataset.indices[position]))
    name: str = dataset.name(position)  # type: ignore[attr-defined]
    return name


class BatchSampler(DistributedSampler[Any]):
    """Yields the positions of each batch as one tensor; every process gets its own share of the same batch.

    The order depends on the seed and the epoch alone, not on the number of processes. Every position comes exactly
    once an epoch: nothing is dropped and nothing repeated to make the shares even, so that sums over the processes
    are sums over the data. A last batch with fewer images than processes joins the one before it; where it is shuffled
    for training, one with fewer than two images a process does, because batch normalization can't train on one image.
    Where the processes' shares of a batch differ by one image, their means weigh alike in the gradient.
    It derives from `DistributedSampler` because Lightning then leaves it in place and tells it the epoch.

    Args:
        length: Number of positions.
        batch_size: Images in a batch, over all processes together.
        shuffle: Whether each epoch has a new random order.
        seed: Seed of the order.
        rank: Which process this is.
        world_size: How many there are.

    Raises:
        UserError: If the batch can't be divided among the processes, or there are fewer images than processes.
    """

    def __init__(
        self, length: int, batch_size: int, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        check_shares(batch_size, world_size)
        if length < world_size:
            raise UserError(f"{length} images are too few for {world_size} processes: use fewer `trainer.devices`")
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.num_replicas = world_size
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.length, self.batch_size)
        return max(1, full + (rest >= self.num_replicas * (2 if self.shuffle else 1)))

    def __iter__(self) -> Iterator[Any]:
        """The positions of each batch that fall to this process, as int64 tensors or as `share` returns them."""
        order = self.order(torch.Generator().manual_seed(self.seed + self.epoch))
        batches, skipped, self.skip = len(self), self.skip, 0
        for number in range(skipped, batches):
            first = number * self.batch_size
            last = self.length if number == batches - 1 else first + self.batch_size
            yield self.share(order[first:last])

    def order(self, generator: torch.Generator) -> Tensor:
        """The positions of an epoch, int64 `(length,)`.

        Args:
            generator: The source of the draws, seeded by the seed and the epoch.
        """
        return torch.randperm(self.length, generator=generator) if self.shuffle else torch.arange(self.length)

    def share(self, batch: Tensor) -> Any:
        """What of a batch falls to this process.

        Args:
            batch: The positions of all processes together, int64.
        """
        return batch[self.rank :: self.num_replicas]

    def go_on(self, epoch: int, batches: int) -> None:
        """Begins in the course of an epoch, or at its end, once.

        Args:
            epoch: Number of the epoch.
            batches: How many of its batches have been seen.
        """
        self.epoch, self.skip = epoch, batches

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the epoch; Lightning calls it."""
        if epoch != self.epoch:
            self.skip = 0  # the epoch before had been seen whole, and was not read again
        self.epoch = epoch


class BalancedSampler(BatchSampler):
    """Draws the positions of an epoch with replacement, such that each class is equally probable.

    Args:
        classes: Class of each position, int64 `(length,)`; at most 2^24 positions.
        **options: Further arguments of `BatchSampler`.
    """

    def __init__(self, classes: Tensor, **options: Any) -> None:
        super().__init__(len(classes), **options)
        self.weights = 1 / classes.bincount()[classes].double()

    def order(self, generator: torch.Generator) -> Tensor:
        """The positions of an epoch, int64 `(length,)`."""
        return torch.multinomial(self.weights, self.length, replacement=True, generator=generator)


class OrderedBatchSampler(BatchSampler, SequentialSampler):  # type: ignore[misc]  # it yields batches, not positions
    """A `BatchSampler` without shuffling.

    It derives from `SequentialSampler` because Lightning then leaves it in place under `trainer.overfit_batches`.
    """


def check_shares(batch_size: int, world_size: int) -> None:
    """Refuses a batch that can't be divided among the processes.

    Args:
        batch_size: Images in a batch, over all processes together.
        world_size: Number of processes.

    Raises:
        UserError: With the nearest size that fits.
    """
    check("data.batch_size", batch_size, least=1)
    if batch_size % world_size:
        raise UserError(
            f"`data.batch_size` {batch_size} is not a multiple of the {world_size} processes: try "
            f"{max(1, round(batch_size / world_size)) * world_size}"
        )


def batch_loader(
    dataset: Dataset[AnyBatch],
    sampler: BatchSampler | Sequence[Tensor],
    num_workers: int = 0,
    pin_memory: bool = False,
    generator: torch.Generator | None = None,
) -> DataLoader[AnyBatch]:
    """A loader whose unit is the batch: no single image or window passes through Python.

    Args:
        dataset: Gives a batch for a tensor of positions.
        sampler: Gives the positions of each batch.
        num_workers: Processes that read ahead; worthwhile only where files are decoded.
        pin_memory: Whether batches are put where a GPU can fetch them by itself.
        generator: Generator of the seeds of the processes; default torch's own, whose later numbers then change.
    """
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        generator=generator,
        worker_init_fn=obey_parent_only,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
