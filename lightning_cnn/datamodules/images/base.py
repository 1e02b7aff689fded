"""The base of all data sets of labelled images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_cnn.datamodules.base import DataModule
from lightning_cnn.datamodules.batches import (
    BalancedSampler,
    Batch,
    BatchSampler,
    Images,
    batch_loader,
    classes_of,
    labels_of,
    moved,
)
from lightning_cnn.datamodules.images.augmentation import Augmentation, AugmentOptions
from lightning_cnn.datamodules.images.decoding import CHUNK_BYTES
from lightning_cnn.datamodules.images.folders import data_root
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.datamodules.images.splitting import Split, ValSplit
from lightning_cnn.datamodules.shared_memory import IS_POSSIBLE, share_memory
from lightning_cnn.errors import UserError, check_choice
from lightning_cnn.resume.lightning_loops import batches_begun
from lightning_cnn.resume.step_seed import step_seed

Normalize = Literal["auto", "standardize", "per_image", "unit", "raw"]


class ImageDataModule(DataModule):
    """Labelled images, kept in memory as uint8, once a machine, scaled and augmented in whole batches on the device.

    A data set of its own needs a subclass with four facts (`num_classes`, `in_channels`, `native_size`,
    `class_names`) and one method, `load`.

    Args:
        root: Folder of the data; default `$LIGHTNING_CNN_DATA` or `data/`. Ignored by data sets that are part of a
            package.
        batch_size: Images per batch, over all processes together.
        image_size: Side of the images in pixels, as the network sees them; default that of the data.
        padding: Border on each side in pixels, included in `image_size`.
        normalize: `auto` uses the preprocessing of the pre-trained weights where the model has them, and otherwise
            standardizes; `standardize` subtracts the mean and divides by the standard deviation of each channel,
            measured on the training part; `per_image` does the same with each image's own values; `unit` divides by
            255; `raw` keeps 0 to 255.
        val_fraction: Share of the training data held out for validation.
        val_split: Which share is held out: `random` (by `split_seed`); `stratified`, the same share of each class where
            that is possible; or the `first` or `last` rows, as in Keras.
        split_seed: Seed of the random split, independent of the seed of the run.
        fold: One of several folds, such as `3/5`, held out in place of `val_fraction`; stratified by class where each
            image has one.
        sampler: Which training images an epoch shows: `shuffle`, each once; `balanced`, as many in all, drawn with
            replacement such that each class is equally frequent.
        augment: Random changes to the training images, such as `{"shift": 0.1, "flip": true}`: `shift`, `flip`,
            `rotation`, `zoom`, `elastic`, `cutout`, `crop`, `crop_fill`, `alternating_flip`, `mixup`, `cutmix`,
            `policy`, `small_epochs`, `small_scale`.
        on_device: Whether to keep the images in the memory of the device, such as a GPU, which speeds up small
            networks; for data sets that are kept in memory.
        download: Whether missing files may be downloaded.

    Attributes:
        unfit: Random changes that don't fit the data, each with the reason.

    Raises:
        UserError: If a value lies outside its range.
    """

    label_kind = "classes"
    num_classes: int
    in_channels: int
    native_size: int
    class_names: tuple[str, ...]
    unfit: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 128,
        image_size: int | None = None,
        padding: int = 0,
        normalize: Normalize = "auto",
        val_fraction: float = 0.2,
        val_split: ValSplit = "random",
        split_seed: int = 0,
        fold: str | None = None,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        augment: AugmentOptions | None = None,
        on_device: bool = False,
        download: bool = True,
    ) -> None:
        super().__init__(batch_size)
        self.root = data_root(root)
        self.image_size = image_size or self.native_size + 2 * padding
        self.normalize = normalize
        self.division = Split(val_fraction, val_split, split_seed, fold)
        self.split_seed = split_seed
        check_choice("data.sampler", sampler, ("shuffle", "balanced"))
        self.sampler = sampler
        self.on_device = on_device
        self.download = download
        self.augmentation = Augmentation.from_options(augment)
        for name, reason in self.unfit.items():
            if getattr(self.augmentation, name) not in (0, "none"):
                raise UserError(f"`data.augment.{name}` {reason}")
        if padding < 0 or self.image_size <= 2 * padding:
            raise UserError(f"`data.image_size` {self.image_size} with `data.padding` {padding} leaves no image")
        self.preprocessing = Preprocessing(
            *(self.image_size, self.in_channels, padding),
            std=(1 / 255 if normalize == "raw" else 1.0,),
            per_image=normalize == "per_image",
            class_names=tuple(self.class_names),
        )
        self.augmentation.check(self.image_size, self.in_channels, self.num_classes)
        self._measured = normalize in ("per_image", "unit", "raw")
        self._held_once: set[str] = set()
        self._names: dict[bool, list[str] | None] = {}  # of the images that `load` has read, where the files have them

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Reads one part of the data.

        Args:
            train: The training part, or the test part.

        Returns:
            Images as uint8 `(n, in_channels, native_size, native_size)` and labels as int64 `(n,)`.

        Raises:
            UserError: If the files are missing or damaged.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method load")

    def setup(self, stage: str) -> None:
        """Reads what the stage needs, once; called by Lightning with `fit`, `validate`, `test` or `predict`."""
        self._seed_of_run()
        needed = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}.get(stage, [])
        if not self._measured:
            needed.append("train")
        if self.division.fold is not None and "val" in self.stages:
            raise UserError(
                f"`data.fold` {self.division.fold}: the data have validation images of their own; remove them, or the "
                "option"
            )
        trainer = self.trainer if IS_POSSIBLE and self.trainer and self.trainer.world_size > 1 else None
        is_first = trainer is None or trainer.local_rank == 0
        missing = [part for part in needed if part not in self._sets]
        if missing and is_first:
            self._sets |= self.open_parts(missing)
        if trainer is not None and not self._held_once.issuperset(needed):
            opened = {part: dataset for part, dataset in self._sets.items() if part not in self._held_once}
            shared = share_memory(opened, is_first)
            self._sets |= shared
            self._held_once |= shared.keys()
        if self.sampler == "balanced" and "train" in self._sets and classes_of(self._sets["train"]) is None:
            raise UserError("`data.sampler` balanced requires one class per image: remove it")
        if not self._measured:
            self.preprocessing = self.preprocessing.standardize(self._sample_in_parts(10_000))
            self._measured = True

    def open_parts(self, parts: Sequence[str]) -> dict[str, Dataset[Batch]]:
        """The data sets of some parts, and of others that come with them.

        Args:
            parts: Of `train`, `val` and `test`.
        """
        opened: dict[str, Dataset[Batch]] = {}
        if "test" in parts:
            opened["test"] = self.examples(train=False)
        if "train" in parts or "val" in parts:
            opened |= self.split(self.examples(train=True))
        return opened

    def examples(self, train: bool) -> Dataset[Batch]:
        """What `load` reads of one part, as a data set.

        Args:
            train: The training part, or the test part.
        """
        images, labels = self.load(train)
        return Images(self.preprocessing.fit(images), labels, self._names.get(train))

    def split(self, dataset: Dataset[Batch]) -> dict[str, Dataset[Batch]]:
        """Divides the training data into `train` and `val`."""
        length = len(dataset)  # type: ignore[arg-type]
        train, val = self.division.rows(length, classes_of(dataset), self.groups_of(dataset))
        return {"train": Subset(dataset, train), "val": Subset(dataset, val)}  # type: ignore[arg-type]

    def groups_of(self, dataset: Dataset[Batch]) -> list[str] | None:
        """The group of each training image, which stay together when images are held out; None without groups.

        Args:
            dataset: The training images.
        """
        return None

    def counts(self, dataset: Dataset[Batch]) -> Tensor | None:
        """How many images of a data set have each class or label, int64 `(num_classes,)`; None without these.

        Args:
            dataset: Such as the training part, `dataset("train")`.
        """
        if (classes := classes_of(dataset)) is not None:
            return classes.bincount(minlength=self.num_classes)
        labels = labels_of(dataset)
        has_labels = labels is not None and labels.ndim == 2 and self.label_kind == "any number of labels"
        return labels.sum(0) if labels is not None and has_labels else None

    def make_sampler(self, part: str, trains: bool, **options: Any) -> BatchSampler:
        """The order in which a loader reads a part, balanced for training where that is asked for.

        Args:
            part: Name of the part.
            trains: Whether the batches are for training.
            **options: Arguments of `BatchSampler`.
        """
        classes = classes_of(self._sets[part])
        if trains and options["shuffle"] and self.sampler == "balanced" and classes is not None:
            return BalancedSampler(classes, **options)
        return super().make_sampler(part, trains, **options)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turns uint8 images into what the network sees, on the device; augments where the trainer trains.

        Args:
            batch: uint8 images `(b, channels, side, side)` and labels `(b,)`.
            dataloader_idx: Not used.

        Returns:
            Float images of the same shape, and the labels; of mixed images probabilities `(b, num_classes)`.
        """
        if isinstance(batch, Tensor):  # the example input of the model summary
            return batch
        images, labels = batch
        if self.trainer is None or not self.trainer.training:
            return self.preprocessing.scale(self.preprocessing.middle(images).float() / 255), labels
        # the seed depends on the step and the process alone, so that a resumed run augments as an unbroken one
        seed = step_seed(self._seed, batches_begun(self.trainer), self.trainer.global_rank)
        generator = torch.Generator(images.device).manual_seed(seed)
        return self.augment(images, labels, generator, self.trainer.current_epoch)

    def augment(self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: int) -> Batch:
        """Training images as the network sees them.

        Args:
            images: uint8, `(b, channels, side, side)`.
            labels: int64, `(b,)`.
            generator: The source of the draws, on the same device.
            epoch: Number of the epoch.

        Returns:
            Float images of the same shape, or small ones; the labels or, of mixed images, probabilities
            `(b, num_classes)`.
        """
        pixels = self.augmentation.change(images, generator, epoch, self._seed)
        pixels = self.augmentation.cut(self.preprocessing.scale(pixels), generator)
        return self.augmentation.mix(self.augmentation.shrink(pixels, epoch), labels, self.num_classes, generator)

    @property
    def small_side(self) -> int | None:
        """The side of the images of the first epochs in pixels, where these are small."""
        return self.augmentation.small_side(self.image_size) if self.augmentation.small_epochs else None

    def plot(self, count: int | None = None, augmented: bool = False) -> Any:
        """Figure of evenly spaced training images with their class names.

        Args:
            count: How many; default 25, with their augmented versions 6.
            augmented: Whether an augmented version stands beside each image, as the first epoch may show it.

        Returns:
            A matplotlib `Figure`.
        """
        from lightning_cnn.datamodules.images.examples import example_figure

        self.setup("fit")
        return example_figure(self, self._sample(count or (6 if augmented else 25)), augmented)

    def title(self, label: Tensor) -> str:
        """What stands above an image in pictures: the name of its class.

        Args:
            label: int64, of one image.
        """
        return self.class_names[int(label)]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint carries of the data: the preprocessing."""
        return {"preprocessing": self.preprocessing.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes measured mean and deviation from a checkpoint; a fixed scaling that is asked for here stays.

        With a checkpoint of a version that knew no background, transparent pixels keep the color that lies beneath.
        """
        if "background" not in state_dict["preprocessing"]:
            self.preprocessing = replace(self.preprocessing, background=None)
        if self.normalize in ("auto", "standardize"):
            saved = Preprocessing.from_dict(state_dict["preprocessing"])
            self.scale_by(saved.mean, saved.std, saved.per_image)

    def scale_by(self, mean: Sequence[float], std: Sequence[float], per_image: bool = False) -> None:
        """Scales by a given mean and standard deviation of each channel, not by measured ones.

        Args:
            mean: Of each channel, on a scale of 0 to 1.
            std: Of each channel.
            per_image: Whether each image is then scaled by its own values.
        """
        self.preprocessing = replace(self.preprocessing, mean=tuple(mean), std=tuple(std), per_image=per_image)
        self._measured = True

    def training_images(self, count: int) -> Tensor:
        """Some training images, evenly spread, as the network sees them without augmentation.

        Args:
            count: How many at most.

        Returns:
            Float, `(count, channels, side, side)`.
        """
        images = self._sets["train"][self._sample(count)][0]
        return self.preprocessing.scale(self.preprocessing.middle(images).float() / 255)

    def _sample_in_parts(self, count: int) -> Iterator[Tensor]:
        """Some training images, part by part: those on disk need not fit into memory."""
        train = self._sets["train"]
        parts = self._sample(count).split(max(1, CHUNK_BYTES // (self.in_channels * self.image_size**2)))
        # a generator of its own: the training's draws must not depend on where the images lie
        loader = batch_loader(train, parts, self.workers_for(train), generator=torch.Generator())
        return (batch[0] for batch in loader)

    def _loader(self, part: str, shuffle: bool = False) -> DataLoader[Batch]:
        if self.trainer is not None and self.on_device:
            self._sets[part] = moved(self._sets[part], self.trainer.strategy.root_device)
        return super()._loader(part, shuffle)
