"""Images of different sizes with their masks, and the windows of them that make a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, SequentialSampler

from lightning_cnn.datamodules.batches import Batch, BatchSampler, OnDisk
from lightning_cnn.options import IGNORE

MULTIPLE = 32  # whole images are padded to multiples of this side, which networks with five halvings need


class Windows(NamedTuple):
    """The index of a batch: one window of each image, all of one size.

    Attributes:
        positions: Of the images, int64 `(b,)`.
        size: Height and width of the windows in pixels.
        places: Where each window lies, from 0 (top, left) to 1, `(b, 2)`; None for the top left corner.
        border: Pixels that are added on each side of the windows.
    """

    positions: Tensor
    size: tuple[int, int]
    places: Tensor | None = None
    border: int = 0


@dataclass(frozen=True)
class Ragged:
    """Images of different sizes in memory, in one tensor: many tensors could not be shared among processes.

    Attributes:
        values: uint8 `(values of all images,)`.
        starts: int64 `(n + 1,)`: image `i` is `values[starts[i] : starts[i + 1]]`.
        shapes: int64 `(n, dimensions)`.
    """

    values: Tensor
    starts: Tensor
    shapes: Tensor

    @classmethod
    def empty(cls, shapes: Tensor) -> "Ragged":
        """Images whose pixels are yet to be written.

        Args:
            shapes: int64 `(n, dimensions)`.
        """
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), shapes.prod(1).cumsum(0)])
        return cls(torch.empty(int(starts[-1]), dtype=torch.uint8), starts, shapes)

    @classmethod
    def of(cls, images: Sequence[Tensor] | Tensor) -> "Ragged":
        """Images in memory.

        Args:
            images: uint8, each with the same number of dimensions.
        """
        found = cls.empty(torch.tensor([[*image.shape] for image in images]))
        for position, image in enumerate(images):
            found[position].copy_(image)
        return found

    def __len__(self) -> int:
        """Number of images."""
        return len(self.shapes)

    def __getitem__(self, position: int) -> Tensor:
        """An image; not a copy."""
        values = self.values[int(self.starts[position]) : int(self.starts[position + 1])]
        return values.view(self.shapes[position].tolist())


class MaskedImages(Dataset[Batch]):
    """Images of any sizes, each with its mask. An index is `Windows`, or a tensor of positions of whole images.

    Args:
        images: uint8, each `(channels, height, width)`.
        masks: uint8, each `(height, width)`.
        sizes: Height and width of each image, int64 `(n, 2)`.
        names: What each image is called, such as its file name; default its position.
    """

    def __init__(
        self, images: Ragged | OnDisk, masks: Ragged | OnDisk, sizes: Tensor, names: Sequence[str] | None = None
    ) -> None:
        self.images = images
        self.masks = masks
        self.sizes = sizes
        self.names = names
        self.rows = torch.arange(len(sizes))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __getitem__(self, index: Windows | Tensor) -> Batch:
        """A batch of images `(b, channels, height, width)` and masks `(b, height, width)`, uint8.

        Of whole images the smaller ones are padded. Pixels outside of an image repeat its border; in the mask they are
        `IGNORE`.
        """
        if isinstance(index, Tensor):
            index = Windows(index, self.common_size(index))
        places = torch.zeros(len(index.positions), 2) if index.places is None else index.places
        pairs = [
            window(*self.whole(position), index.size, place, index.border)
            for position, place in zip(index.positions.tolist(), places.tolist(), strict=True)
        ]
        images, masks = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(masks)

    def whole(self, position: int) -> Batch:
        """An image `(channels, height, width)` and its mask `(height, width)`, uint8; in memory no copies."""
        row = int(self.rows[position])
        return _one(self.images, row), _one(self.masks, row)

    def common_size(self, positions: Tensor) -> tuple[int, int]:
        """The least height and width, multiples of 32, into which some images fit."""
        height, width = (-(-self.sizes[self.rows[positions]].amax(0) // MULTIPLE) * MULTIPLE).tolist()
        return height, width

    def take(self, rows: Tensor) -> "MaskedImages":
        """A part of the data set, which shares its pixels.

        Args:
            rows: Positions of the images, int64.
        """
        part = MaskedImages(self.images, self.masks, self.sizes, self.names)
        part.rows = self.rows[rows]
        return part

    def name(self, position: int) -> str:
        """What the image is called."""
        row = int(self.rows[position])
        return str(row) if self.names is None else self.names[row]


def _one(stored: Ragged | OnDisk, row: int) -> Tensor:
    return stored[row] if isinstance(stored, Ragged) else stored.read(stored.photos[row])


def window(image: Tensor, mask: Tensor, size: tuple[int, int], place: Sequence[float], border: int = 0) -> Batch:
    """A window of an image and of its mask; what lies outside repeats the border, and is `IGNORE` in the mask.

    Args:
        image: uint8, `(channels, height, width)`.
        mask: uint8, `(height, width)`.
        size: Height and width of the window.
        place: Where it lies between top and bottom, and between left and right, from 0 to 1.
        border: Pixels that are added on each side.
    """
    inside: list[slice] = []
    beyond: list[tuple[int, int]] = []
    for there, length, share in zip(mask.shape, size, place, strict=True):
        room = there - length  # negative where the image is smaller: then it lies somewhere in the window
        moved = min(int(share * (abs(room) + 1)), abs(room))
        first = (moved if room > 0 else -moved) - border
        last = first + length + 2 * border
        inside.append(slice(max(first, 0), min(last, there)))
        beyond.append((max(-first, 0), max(last - there, 0)))
    rows, columns = inside
    image, mask = image[:, rows, columns], mask[rows, columns]
    if any(map(any, beyond)):
        # torch repeats the border of floats only
        image = torch.from_numpy(np.pad(image.numpy(), [(0, 0), *beyond], mode="edge"))
        mask = F.pad(mask, (*beyond[1], *beyond[0]), value=IGNORE)
    return image, mask


class CropSampler(BatchSampler):
    """Yields a random crop of each image of a batch: the same ones on any number of processes and after a resumption.

    Without shuffling, as under `trainer.overfit_batches`, the crops of each epoch are the same.

    Args:
        length: Number of images.
        side: Side of the crops.
        border: Pixels that are added on each side of the crops.
        **options: Arguments of `BatchSampler`.
    """

    def __init__(self, length: int, side: int, border: int, **options: Any) -> None:
        super().__init__(length, **options)
        self.side = side
        self.border = border

    def share(self, batch: Tensor) -> Windows:
        """The crops that fall to this process."""
        epoch = self.epoch if self.shuffle else 0
        # in an epoch each image is first in one batch at most
        seed = ((self.seed * 1_000_003 + epoch) * 2**31 + int(batch[0])) % 2**63
        places = torch.rand(len(batch), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        size = (self.side, self.side)
        return Windows(super().share(batch), size, super().share(places), self.border)


class OrderedCropSampler(CropSampler, SequentialSampler):  # type: ignore[misc]  # it yields batches, not positions
    """A `CropSampler` that Lightning leaves in place under `trainer.overfit_batches`."""


class WholeSampler(BatchSampler, SequentialSampler):  # type: ignore[misc]  # it yields batches, not positions
    """Yields whole images, padded alike in a batch of all processes: what is padded does not depend on their number.

    Args:
        images: The images.
        **options: Arguments of `BatchSampler`.
    """

    def __init__(self, images: MaskedImages, **options: Any) -> None:
        super().__init__(len(images), **options)
        self.images = images

    def share(self, batch: Tensor) -> Windows:
        """The images that fall to this process."""
        return Windows(super().share(batch), self.images.common_size(batch))
