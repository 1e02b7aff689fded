"""A user's own images with any number of labels, or with numbers, each: a CSV beside them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cnn.datamodules.batches import labels_of
from lightning_cnn.datamodules.images.image_folder import ImageFolder
from lightning_cnn.datamodules.images.splitting import ValSplit
from lightning_cnn.errors import UserError

LARGEST = 1e30  # whose square float32 still holds in part


class ImageTable(ImageFolder):
    """Your own images with any number of labels per image, listed in a CSV file.

    The table has a row per image: its `file`, a path inside `root`; optionally its `part` or `split`, `train` (the
    default), `val` or `test`; and a column per label, 1 if the image has it and 0 otherwise. Without rows of `val`, a
    share of `train` is held out. Images are read as in `ImageFolder`.

    Args:
        root: Folder of the images; default `$LIGHTNING_CNN_DATA` or `data/`.
        labels: The CSV file, as a path inside `root` or from the working directory.
        groups: Column of that file: images of a group are never divided between training and validation.
        val_split: Which share is held out: `random` (by `split_seed`), or the `first` or `last` images.

    Attributes:
        least: Smallest number of columns beside `file`, `part` and the groups.
        cell: What a cell of these columns must hold.

    Raises:
        UserError: If the table can't be used, or an image is missing or can't be decoded.
    """

    default_model = "MultiLabelClassifier"
    label_kind = "any number of labels"
    unfit: ClassVar[dict[str, str]] = dict.fromkeys(("mixup", "cutmix"), "mixes images of one class each")
    least: ClassVar[int] = 2
    cell: ClassVar[str] = "0 or 1 per label"

    def __init__(
        self, root: str | None = None, *, labels: str = "labels.csv", val_split: ValSplit = "random", **options: Any
    ) -> None:
        super().__init__(root, labels=labels, val_split=val_split, **options)

    def find_classes(self, folder: Path) -> tuple[str, ...]:
        """The names of the labels; reads the table."""
        table = self._read_table(folder)
        names = table.others(self.groups)
        if len(names) < self.least:
            count = "two labels or more" if self.least == 2 else "one column or more"
            raise UserError(f"{table.path}: the first line must have `file` and {count}, each once")

        def label(cells: list[str]) -> list[float] | None:
            values = [self.value(cell) for cell in cells]
            known = [value for value in values if value is not None]
            return known if len(known) == len(values) else None

        self._take(table.images(folder, names, label, self.cell, self.groups or ""))
        return tuple(names)

    def value(self, cell: str) -> float | None:
        """What a cell means; None if it can't be read.

        Args:
            cell: Its text.
        """
        return {"0": 0, "1": 1}.get(cell)

    def title(self, label: Tensor) -> str:
        """What stands above an image in figures: its labels.

        Args:
            label: int64, of one image, `(num_classes,)`.
        """
        return "+".join(self.class_names[place] for place in label.nonzero().flatten().tolist()) or "none"

    def as_labels(self, labels: Sequence[Any]) -> Tensor:
        """Labels int64 `(n, num_classes)`."""
        return torch.tensor(labels)


class ImageValues(ImageTable):
    """Your own images with one or several numbers per image, listed in a CSV file.

    The table is that of `ImageTable`, with a number in each further column, such as `file,angle`. Images are read as in
    `ImageFolder`.

    Raises:
        UserError: If the table can't be used, or an image is missing or can't be decoded.
    """

    default_model = "ImageRegressor"
    label_kind = "numbers"
    unfit: ClassVar[dict[str, str]] = dict.fromkeys(("mixup", "cutmix"), "mixes images of one class each")
    least = 1
    cell = "a number per column"

    def value(self, cell: str) -> float | None:
        """The number in a cell; None if it holds no finite one.

        Args:
            cell: Its text.
        """
        try:
            number = float(cell)
        except ValueError:
            return None
        return number if math.isfinite(number) and abs(number) < LARGEST else None

    def label_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each number in the training part, `(num_classes,)`."""
        labels = labels_of(self._sets["train"])
        assert labels is not None
        labels = labels.double()
        return labels.mean(0), labels.std(0, correction=0)

    def title(self, label: Tensor) -> str:
        """What stands above an image in figures: its numbers.

        Args:
            label: float32, of one image, `(num_classes,)`.
        """
        return ", ".join(f"{number:.4g}" for number in label.tolist())

    def as_labels(self, labels: Sequence[Any]) -> Tensor:
        """Numbers float32 `(n, num_classes)`."""
        return torch.tensor(labels, dtype=torch.float32)
