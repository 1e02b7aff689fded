"""Where the digits of house numbers lie: boxes, the crop around a number, and its label."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_cnn.architectures.house_number import BLANK, MAX_DIGITS
from lightning_cnn.datamodules.detection.annotations import BoxAnnotations
from lightning_cnn.errors import StorageError
from lightning_cnn.resume.files import make_folder, replacing
from lightning_cnn.resume.processes import process_rank

COLUMNS = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class DigitAnnotations(BoxAnnotations):
    """The digits of many images, each with its box, in the order in which they are read; `classes` are uint8."""

    @property
    def digits(self) -> NDArray[np.integer[Any]]:
        """The digits, 0 to 9, `(m,)`."""
        return self.classes

    def labels(self) -> Tensor:
        """The labels of numbers: int64 `(n, 6)`, the count of digits, then the digits, `BLANK` behind the last.

        Raises:
            ValueError: If a number has no digit, or more than five.
        """
        lengths = self.lengths
        if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= MAX_DIGITS:
            raise ValueError(f"numbers of {lengths.min()} to {lengths.max()} digits: 1 to {MAX_DIGITS} can be labelled")
        found = np.full((len(self), 1 + MAX_DIGITS), BLANK, dtype=np.int64)
        found[:, 0] = lengths
        found[self.rows, 1 + np.arange(len(self.digits)) - self.starts[self.rows]] = self.digits
        return torch.from_numpy(found)

    def crops(self, grow: float = 0.1) -> NDArray[np.int64]:
        """The part of each image that shows its number: the union of the boxes, grown and clipped to the image.

        Args:
            grow: By which share of its width and height the union grows on each side.

        Returns:
            `(n, 4)`: left, top, right, bottom in whole pixels, at least one pixel wide and high. The image's border
            clips only where `sizes` knows it.
        """
        low = np.minimum.reduceat(self.boxes[:, :2], self.starts[:-1])
        high = np.maximum.reduceat(self.boxes[:, 2:], self.starts[:-1])
        border = grow * (high - low)
        sizes = np.where(self.sizes > 0, self.sizes, np.iinfo(np.int32).max)
        low = np.rint(np.clip(low - border, 0, sizes - 1)).astype(np.int64)
        high = np.rint(np.clip(high + border, 1, sizes)).astype(np.int64)
        return np.concatenate([low, np.maximum(high, low + 1)], axis=1)

    def save(self, path: Path) -> None:
        """Writes a Parquet file, one row a digit, in one step.

        Raises:
            StorageError: If it can't be written.
        """
        import pyarrow as pa
        from pyarrow import parquet

        columns: dict[str, object] = {"image": self.rows, "digit": self.digits}
        columns |= {name: self.boxes[:, number] for number, name in enumerate(COLUMNS)}
        schema = {"names": "\n".join(self.names), "sizes": " ".join(map(str, self.sizes.ravel()))}
        make_folder(path.parent)
        with replacing(path) as file:
            parquet.write_table(pa.table(columns).replace_schema_metadata(schema), file)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote."""
        from pyarrow import parquet

        table = parquet.read_table(path)
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        names = metadata["names"].split("\n") if metadata["names"] else []
        counts = np.bincount(table["image"].to_numpy(), minlength=len(names))
        return cls(
            names,
            np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            table["digit"].to_numpy().astype(np.uint8),
            np.stack([table[name].to_numpy() for name in COLUMNS], axis=1).astype(np.float32),
            np.array(metadata["sizes"].split(), dtype=np.int64).reshape(-1, 2),
        )


def kept(cache: Path | None, name: str, path: Path, read: Callable[[], DigitAnnotations]) -> DigitAnnotations:
    """The annotations in a file, kept as Parquet for the next time.

    Args:
        cache: Folder of what is kept. Where it can't be written, nothing is.
        name: Beginning of the name of what is kept; the hash of the file follows.
        path: The file.
        read: Reads it.

    Raises:
        OSError: If the file can't be opened.
    """
    from pyarrow import ArrowException

    if cache is None:
        return read()
    with path.open("rb") as file:
        place = cache / f"{name}-{hashlib.file_digest(file, 'blake2b').hexdigest()[:16]}.parquet"
    if place.is_file():
        with suppress(OSError, ArrowException, KeyError, ValueError, AttributeError):  # damaged: made anew
            return DigitAnnotations.load(place)
    found = read()
    if process_rank() == 0:  # one of many processes writes
        with suppress(StorageError):
            found.save(place)
    return found
