"""A user's own images with any number of labels, or with numbers, each: a CSV beside them."""

import csv
import math
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Subset

from lightning_cnn.datamodules.images.image_folder import PARTS, ImageFolder
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text, escaped
from lightning_cnn.regular_files import read_regular

FILE, PART = "file", "part"
LARGEST = 1e30  # whose square float32 still holds in part


class ImageTable(ImageFolder):
    """Your own images with any number of labels per image, listed in a CSV file.

    The table has a row per image: its `file`, a path inside `root`; optionally its `part`, `train` (the default),
    `val` or `test`; and a column per label, 1 if the image has it and 0 otherwise. Without rows of `val`, a share of
    `train` is held out. Images are read as in `ImageFolder`.

    Args:
        root: Folder of the images; default `$LIGHTNING_CNN_DATA` or `data/`.
        table: The CSV file, as a path inside `root`.

    Attributes:
        least: Smallest number of columns beside `file` and `part`.
        cell: What a cell of these columns must hold.

    Raises:
        UserError: If the table can't be used, or an image is missing or can't be decoded.
    """

    default_model = "MultiLabelClassifier"
    label_kind = "any number of labels"
    unfit: ClassVar[dict[str, str]] = dict.fromkeys(("mixup", "cutmix"), "mixes images of one class each")
    least: ClassVar[int] = 2
    cell: ClassVar[str] = "0 or 1 per label"

    def __init__(self, root: str | None = None, *, table: str = "labels.csv", **options: Any) -> None:
        self.table = table
        self._rows: dict[str, list[tuple[str, list[float]]]] = {}
        super().__init__(root, **options)

    def find_classes(self, folder: Path) -> tuple[str, ...]:
        """The names of the labels; reads the table."""
        path = folder / self.table
        try:
            first, *lines = csv.reader(read_regular(path).splitlines())
        except (OSError, ValueError, csv.Error):  # none, no text, no line, or no CSV
            raise UserError(f"{path} can't be read as a CSV: name the table with `data.table`") from None
        names = [name for name in first if name not in (FILE, PART)]
        if FILE not in first or len(set(first)) < len(first) or len(names) < self.least:
            count = "two labels or more" if self.least == 2 else "one column or more"
            raise UserError(f"{path}: the first line must have `{FILE}` and {count}, each once")
        for name in names:
            check_text(f"{path}, a column", name)
        for number, line in enumerate(lines, start=2):
            row = dict(zip(first, line, strict=False))
            values = [self.value(row.get(name, "").strip()) for name in names]
            part, file = row.get(PART, PARTS[0]), PurePosixPath(row.get(FILE, ""))
            known = [value for value in values if value is not None]
            if len(line) != len(first) or part not in PARTS or len(known) < len(names):
                raise UserError(f"{path}, line {number}: it must have a part ({', '.join(PARTS)}) and {self.cell}")
            if file.is_absolute() or ".." in file.parts or not (folder / file).is_file():
                raise UserError(f"{path}, line {number}: there is no file {escaped(str(file))!r} in {folder}")
            self._rows.setdefault(part, []).append((str(folder / file), known))
        return tuple(names)

    def value(self, cell: str) -> float | None:
        """What a cell means; None if it can't be read.

        Args:
            cell: Its text.
        """
        return {"0": 0, "1": 1}.get(cell)

    def find_stages(self, folder: Path) -> tuple[str, ...]:
        """The parts that the table has."""
        return tuple(part for part in PARTS if part in self._rows)

    def title(self, label: Tensor) -> str:
        """What stands above an image in figures: its labels.

        Args:
            label: int64, of one image, `(num_classes,)`.
        """
        return "+".join(self.class_names[place] for place in label.nonzero().flatten().tolist()) or "none"

    def _find(self, part: str) -> tuple[list[str], Tensor]:
        """The image files of a part, in the order of the table, and their labels."""
        if part not in self._rows:
            raise UserError(f"{self.root / self.table} has no images of the part {part!r}: add some")
        paths, labels = zip(*self._rows[part], strict=True)
        return list(paths), torch.tensor(labels)


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
        train = self._sets["train"]
        whole: Any
        whole, rows = (train.dataset, train.indices) if isinstance(train, Subset) else (train, slice(None))
        labels: Tensor = whole.labels[rows].double()
        return labels.mean(0), labels.std(0, correction=0)

    def title(self, label: Tensor) -> str:
        """What stands above an image in figures: its numbers.

        Args:
            label: float32, of one image, `(num_classes,)`.
        """
        return ", ".join(f"{number:.4g}" for number in label.tolist())

    def _find(self, part: str) -> tuple[list[str], Tensor]:
        """The image files of a part, in the order of the table, and their numbers."""
        paths, labels = super()._find(part)
        return paths, labels.float()
