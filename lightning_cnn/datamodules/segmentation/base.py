"""The base of all data sets of images with masks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from lightning_cnn.datamodules.batches import Batch, BatchSampler, batch_loader
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.datamodules.segmentation.warping import surroundings, warp_both
from lightning_cnn.datamodules.segmentation.windows import (
    CropSampler,
    MaskedImages,
    OrderedCropSampler,
    Ragged,
    WholeSampler,
    Windows,
)
from lightning_cnn.errors import check_choice
from lightning_cnn.options import BACKGROUND

Scaling = Literal["auto", "standardize", "unit", "raw"]
MIXING = ("mixup", "cutmix", "alternating_flip", "policy", "small_epochs")


class MaskDataModule(ImageDataModule):
    """Base class of images with masks: random crops for training, whole images for validation and test.

    A subclass has the facts of an `ImageDataModule` and one method, `load`, which returns images, each uint8
    `(in_channels, height, width)`, and as many masks, each uint8 `(height, width)`: lists, or where all have one size
    tensors. A mask holds the class of each pixel, or 255 (`lightning_cnn.options.IGNORE`) where it counts in no loss
    and no metric.

    A batch has float images `(b, in_channels, height, width)` and int64 masks `(b, height, width)`. In validation and
    test the images are padded at the bottom and at the right to common multiples of 32 pixels.

    Images and masks are augmented alike. The training crops are cut with as much of their surroundings as rotations,
    zooms and shifts bring in; pixels from outside of the image repeat its border, and their masks are 255.

    Args:
        image_size: Side of the training crops in pixels.
        normalize: `auto` and `standardize` by mean and standard deviation of the training part, `unit` and `raw` as
            with other images.
        val_split: Which share is held out: `random` (by `split_seed`), or the `first` or `last` images.
        augment: Random changes to the training images and their masks, such as `{"flip": true, "rotation": 10}`:
            `shift`, `flip`, `rotation`, `zoom` and `elastic`.
        objects: Names of the classes whose connected pixels are single objects, such as `["ship"]`: the test counts how
            many of them are found, by size. Default: those that the data set is known for.

    Raises:
        UserError: If a value lies outside its range, or an augmentation doesn't fit masks.
    """

    fixed: ClassVar[tuple[str, ...]] = ("padding", "on_device")
    unfit: ClassVar[dict[str, str]] = {
        **dict.fromkeys(MIXING, "is for images without masks: leave it out"),
        "cutout": "would hide what the masks show: leave it out",
        "crop": "is for images without masks; training crops have the side `data.image_size`: leave it out",
    }
    usual_objects: Sequence[str] = ()
    default_model = "Segmenter"
    label_kind = "masks"
    native_size = 256

    def __init__(
        self,
        root: str | None = None,
        *,
        batch_size: int = 8,
        image_size: int | None = None,
        normalize: Scaling = "auto",
        objects: list[str] | None = None,
        **options: Any,
    ) -> None:
        check_choice("data.normalize", normalize, ("auto", "standardize", "unit", "raw"))
        super().__init__(
            root,
            batch_size=batch_size,
            image_size=image_size,
            normalize=normalize,
            padding=0,
            on_device=False,
            **options,
        )
        self.preprocessing = replace(self.preprocessing, resize="keep")
        self.objects = tuple(self.usual_objects if objects is None else objects)
        for name in self.objects:
            check_choice("data.objects", name, self.class_names)

    @property
    def has_background(self) -> bool:
        """Whether class 0 is the background."""
        return self.class_names[0] == BACKGROUND

    @property
    def object_classes(self) -> list[int]:
        """The classes whose connected pixels are single objects."""
        return [self.class_names.index(name) for name in self.objects]

    def examples(self, train: bool) -> Dataset[Batch]:
        """What `load` reads of one part, as a data set.

        Args:
            train: The training part, or the test part.
        """
        images, masks = (Ragged.of(part) for part in self.load(train))
        return MaskedImages(images, masks, masks.shapes, self._names.get(train))

    def counts(self, dataset: Dataset[Batch]) -> Tensor:
        """How many pixels of the masks of a data set have each class, int64 `(num_classes,)`; reads all of them.

        Args:
            dataset: Such as the training part, `dataset("train")`.
        """
        found = torch.zeros(256, dtype=torch.int64)
        for position in range(len(dataset)):  # type: ignore[arg-type]
            found += dataset.whole(position)[1].flatten().bincount(minlength=256)  # type: ignore[attr-defined]
        return found[: self.num_classes]

    def split(self, dataset: Dataset[Batch]) -> dict[str, Dataset[Batch]]:
        """Divides the training data into `train` and `val`."""
        parts = super().split(dataset)
        return {
            name: part.dataset.take(torch.as_tensor(part.indices))  # type: ignore[attr-defined]
            for name, part in parts.items()
            if isinstance(part, Subset)
        }

    def make_sampler(self, part: str, trains: bool, **options: Any) -> BatchSampler:
        """The order in which a loader reads a part: random crops for training, else whole images.

        Args:
            part: Name of the part.
            trains: Whether the batches are for training.
            **options: Arguments of `BatchSampler`.
        """
        if not trains:
            return WholeSampler(self._sets[part], **options)
        kind = CropSampler if options["shuffle"] else OrderedCropSampler
        return kind(len(self._sets[part]), side=self.image_size, border=self.border, **options)

    @property
    def border(self) -> int:
        """Pixels around a training crop that augmentation may bring in, at most one side."""
        return min(surroundings(self.augmentation, self.image_size), self.image_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turns uint8 images into what the network sees, on the device; augments where the trainer trains.

        Args:
            batch: uint8 images `(b, channels, height, width)` and masks `(b, height, width)`.
            dataloader_idx: Not used.

        Returns:
            Float images and int64 masks; of training crops without what surrounds them.
        """
        found = super().on_after_batch_transfer(batch, dataloader_idx)
        return found if isinstance(found, Tensor) else (found[0], found[1].long())

    def augment(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int) -> Batch:
        """Training crops and their masks, changed alike.

        Args:
            images: uint8, `(b, channels, height, width)`: crops with what surrounds them.
            labels: Their masks, uint8 `(b, height, width)`.
            generator: The source of the draws, on the same device.
            epoch: Number of the epoch.

        Returns:
            Float images `(b, channels, image_size, image_size)` and uint8 masks.
        """
        pixels, masks = warp_both(self.augmentation, images.float() / 255, labels, self.image_size, generator)
        return self.preprocessing.scale(pixels), masks

    def plot(self, count: int | None = None, augmented: bool = False) -> Any:
        """Figure of evenly spaced training images, each beside its mask.

        Args:
            count: How many; default 12, with their augmented versions 6.
            augmented: Whether an augmented crop with its mask stands beside the middle of each image, as the first
                epoch may show it.

        Returns:
            A matplotlib `Figure`.
        """
        from lightning_cnn.figures.segmentation import masked_grid

        self.setup("fit")
        positions = self._sample(count or (6 if augmented else 12))
        train = self._sets["train"]
        if not augmented:
            pairs = [train.whole(position) for position in positions.tolist()]
            return masked_grid([(image.float() / 255, mask) for image, mask in pairs], self.class_names)
        images, masks = self.crops(positions)
        generator = torch.Generator().manual_seed(self._seed)
        changed, warped = self.augment(*self.crops(positions, self.border), generator, epoch=0)
        crops = zip(images.float() / 255, masks, self.preprocessing.unscale(changed), warped, strict=True)
        shown = [pair for first, mask, second, other in crops for pair in ((first, mask), (second, other))]
        return masked_grid(shown, self.class_names, captions=["", "augmented"] * len(images))

    def training_images(self, count: int) -> Tensor:
        """The middle of some training images, evenly spread, as the network sees them without augmentation.

        Args:
            count: How many at most.

        Returns:
            Float, `(count, channels, image_size, image_size)`.
        """
        images, _ = self.crops(self._sample(count))
        return self.preprocessing.scale(images.float() / 255)

    def crops(self, positions: Tensor, border: int = 0) -> Batch:
        """The middle of some training images, and of their masks, uint8.

        Args:
            positions: Of the images, int64.
            border: Pixels that are added on each side.
        """
        places = torch.full((len(positions), 2), 0.5)
        batch: Batch = self._sets["train"][Windows(positions, (self.image_size,) * 2, places, border)]
        return batch

    def _sample_in_parts(self, count: int) -> Iterator[Tensor]:
        """Some training images, one after the other, whole and without padding."""
        train = self._sets["train"]
        sizes = train.sizes[train.rows].tolist()
        parts = [Windows(position, tuple(sizes[int(position)])) for position in self._sample(count).split(1)]
        loader = batch_loader(train, parts, self.workers_for(train), generator=torch.Generator())  # type: ignore[arg-type]
        return (batch[0] for batch in loader)
