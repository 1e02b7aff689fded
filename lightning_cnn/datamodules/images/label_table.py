"""A user's own images with any number of labels each: a CSV beside them."""

import csv
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cnn.datamodules.images.image_folder import PARTS, ImageFolder
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text, escaped
from lightning_cnn.regular_files import read_regular

FILE, PART = "file", "part"


class ImageTable(ImageFolder):
    """Your own images with any number of labels per image, listed in a CSV file.

    The table has a row per image: its `file`, a path inside `root`; optionally its `part`, `train` (the default),
    `val` or `test`; and a column per label, 1 if the image has it and 0 otherwise. Without rows of `val`, a share of
    `train` is held out. Images are read as in `ImageFolder`.

    Args:
        root: Folder of the images; default `$LIGHTNING_CNN_DATA` or `data/`.
        table: The CSV file, as a path inside `root`.

    Raises:
        UserError: If the table can't be used, or an image is missing or can't be decoded.
    """

    default_model = "MultiLabelClassifier"
    label_kind = "any number of labels"
    unfit: ClassVar[dict[str, str]] = dict.fromkeys(("mixup", "cutmix"), "mixes images of one class each")

    def __init__(self, root: str | None = None, *, table: str = "labels.csv", **options: Any) -> None:
        self.table = table
        self._rows: dict[str, list[tuple[str, list[int]]]] = {}
        super().__init__(root, **options)

    def find_classes(self, folder: Path) -> tuple[str, ...]:
        """The names of the labels; reads the table."""
        path = folder / self.table
        try:
            first, *lines = csv.reader(read_regular(path).splitlines())
        except (OSError, ValueError, csv.Error):  # none, no text, no line, or no CSV
            raise UserError(f"{path} can't be read as a CSV: name the table with `data.table`") from None
        names = [name for name in first if name not in (FILE, PART)]
        if FILE not in first or len(set(first)) < len(first) or len(names) < 2:
            raise UserError(f"{path}: the first line must have `{FILE}` and two labels or more, each once")
        for name in names:
            check_text(f"{path}, a label", name)
        for number, line in enumerate(lines, start=2):
            row = dict(zip(first, line, strict=False))
            values = [row.get(name, "").strip() for name in names]
            part, file = row.get(PART, PARTS[0]), PurePosixPath(row.get(FILE, ""))
            if len(line) != len(first) or part not in PARTS or not {"0", "1"}.issuperset(values):
                raise UserError(f"{path}, line {number}: it must have a part ({', '.join(PARTS)}) and 0 or 1 per label")
            if file.is_absolute() or ".." in file.parts or not (folder / file).is_file():
                raise UserError(f"{path}, line {number}: there is no file {escaped(str(file))!r} in {folder}")
            self._rows.setdefault(part, []).append((str(folder / file), [int(value) for value in values]))
        return tuple(names)

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
