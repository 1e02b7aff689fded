"""Lengths, digits, boxes and sizes of house numbers: SVHN's annotations, or sampled from their distributions."""

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnn.architectures.house_number import MAX_DIGITS
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations, kept
from lightning_cnn.errors import UserError

Values = NDArray[np.float64]
SIZE = re.compile(rb"<width>\s*(\d+)\s*</width>\s*<height>\s*(\d+)\s*</height>")
# nothing but these tags in this order, so that a digit never takes a number of the next one
OBJECT = re.compile(
    rb"<object>\s*<name>\s*(\d+)\s*</name>\s*<bndbox>\s*"
    + rb"\s*".join(rb"<%b>\s*(-?\d+)\s*</%b>" % (name, name) for name in (b"xmin", b"ymin", b"xmax", b"ymax"))
    + rb"\s*</bndbox>\s*</object>"
)
LARGEST = 1 << 20  # bytes of an XML file; SVHN's have about a thousand
NAME = re.compile(r"(?:.*/)?(train|test)/(\d+)\.xml")
# measured on the 33,402 annotations of SVHN's training part
LENGTHS = (0.1538, 0.5428, 0.2602, 0.0429, 0.0003)  # share of the numbers of one to five digits
FIRST = (0.003, 0.277, 0.189, 0.130, 0.105, 0.085, 0.064, 0.056, 0.048, 0.043)  # share of each first digit
HEIGHT = (3.40, 0.47)  # mean and deviation of the logarithm of a digit's height in pixels
ASPECT, ASPECT_ONE, ASPECT_DEVIATION = 0.52, 0.38, 0.12  # width by height: of digits, of the 1
GAP, STEP = 0.076, 0.07  # deviations, in heights, of the gap to the next digit and of the step up or down to it
BORDERS = ((0.08, 0.35), (-1.55, 0.8))  # mean and deviation of the logarithm of the wall beside and above, in heights


def read_annotations(path: Path, part: str, cache: Path | None = None) -> DigitAnnotations:
    """The real annotations of one part of SVHN.

    Numbers of no digit or of more than five, and those with a box that has no area, are left out with a warning that
    counts them.

    Args:
        path: A zip of XML files `train/<number>.xml` and `test/<number>.xml`, one an image; or a Parquet file of
            `DigitAnnotations.save`, of which every fourth record is for the test, the others for training.
        part: `train` or `test`.
        cache: Folder in which what was read is kept as Parquet, under the hash of the file, where it can be written.

    Raises:
        UserError: If the file is missing, neither of the two, damaged, or has no such annotations.
    """
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        if parquet:
            found = _read_parquet(path, part)
        else:
            found = kept(cache, f"annotations-{part}", path, lambda: _parse(path, part))
    except OSError as error:
        raise UserError(
            f"`data.annotations` {path}: {error.strerror or error}; use the zip of SVHN's annotations, or remove it"
        ) from None
    fitting = (found.lengths >= 1) & (found.lengths <= MAX_DIGITS) & ~found.faulty
    if not fitting.any():
        raise UserError(
            f"`data.annotations` {path} has no annotations {part}/1.xml, ... of one to {MAX_DIGITS} digits: use "
            "SVHN's annotations, or remove the option"
        )
    if not fitting.all():
        first = found.names[int(np.flatnonzero(~fitting)[0])]
        rank_zero_warn(
            f"skipped: {(~fitting).sum():,} of {len(found):,} annotations in {path}, of no digit, of more "
            f"than {MAX_DIGITS}, or with a box that has no area (first {part}/{first})"
        )
    return found.select(np.flatnonzero(fitting))


def _read_parquet(path: Path, part: str) -> DigitAnnotations:
    """Every fourth record of a Parquet file, or the others."""
    from pyarrow import ArrowException

    try:
        found = DigitAnnotations.load(path)
        rows = np.arange(len(found))
        found = found.select(rows[(rows % 4 == 3) == (part == "test")])
    except (ArrowException, KeyError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"`data.annotations` {path} is a Parquet file without annotations ({error}): use SVHN's zip"
        ) from None
    if (found.digits > 9).any():
        raise UserError(f"`data.annotations` {path}: a digit is outside 0 to 9: correct it")
    return found


def _parse(path: Path, part: str) -> DigitAnnotations:
    """Reads the XML files of one part by regular expressions: 46,470 take seconds, an XML parser several times that."""
    names, starts, rows, sizes = [], [0], [], []
    try:
        with zipfile.ZipFile(path) as archive:
            found = [match for name in archive.namelist() if (match := NAME.fullmatch(name)) and match[1] == part]
            for match in sorted(found, key=lambda match: int(match[2])):
                if archive.getinfo(match[0]).file_size > LARGEST:
                    raise zipfile.BadZipFile(f"{match[0]} has more than {LARGEST:,} bytes")
                text = archive.read(match[0])
                digits = [[int(value) for value in digit] for digit in OBJECT.findall(text)]
                size = SIZE.search(text)
                if size is None or int(size[1]) * int(size[2]) == 0 or len(digits) != text.count(b"<object>"):
                    raise UserError(
                        f"`data.annotations` {path}: {match[0]} lacks its size, or an object its name, xmin, ymin, "
                        "xmax or ymax in whole numbers: correct it"
                    )
                names.append(f"{match[2]}.png")
                starts.append(starts[-1] + len(digits))
                rows += digits
                sizes.append([int(size[1]), int(size[2])])
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(
            f"`data.annotations` {path} can't be read as a zip of XML files ({error}): take SVHN's annotations, or "
            "leave it out"
        ) from None
    table = np.array(rows).reshape(-1, 5)
    if not np.isin(table[:, 0], np.arange(11)).all():
        raise UserError(f"`data.annotations` {path}: a label is outside 0 to 10 (10 means 0): correct it")
    return DigitAnnotations(
        names,
        np.array(starts, dtype=np.int64),
        (table[:, 0] % 10).astype(np.uint8),
        table[:, 1:].astype(np.float32),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
    )


def sample_annotations(count: int, seed: int) -> DigitAnnotations:
    """Numbers whose lengths, digits, boxes and sizes are distributed roughly as in SVHN.

    Args:
        count: How many.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    lengths = random.choice(np.arange(1, MAX_DIGITS + 1), count, p=np.array(LENGTHS) / sum(LENGTHS))
    starts = np.concatenate([[0], lengths.cumsum()])
    total, rows = int(starts[-1]), np.repeat(np.arange(count), lengths)
    digits = random.integers(0, 10, total)
    digits[starts[:-1]] = random.choice(10, count, p=np.array(FIRST) / sum(FIRST))
    height = np.exp(random.normal(*HEIGHT, count)).clip(10, 300)
    aspect = random.normal(np.where(digits == 1, ASPECT_ONE, ASPECT), ASPECT_DEVIATION).clip(0.2, 1.2)
    width, gap = aspect * height[rows], random.normal(0, GAP, total) * height[rows]
    left = _running(width + gap, starts, rows) - width - gap
    top = _running(random.normal(0, STEP, total) * height[rows], starts, rows)
    side, above = (np.exp(random.normal(mean, deviation, (2, count))) * height for mean, deviation in BORDERS)
    left += side[0][rows] - np.minimum.reduceat(left, starts[:-1])[rows]
    top += above[0][rows] - np.minimum.reduceat(top, starts[:-1])[rows]
    right, bottom = left + width, top + height[rows]
    boxes = np.stack([left, top, right, bottom], axis=1).round()
    sizes = np.stack(
        [np.maximum.reduceat(right, starts[:-1]) + side[1], np.maximum.reduceat(bottom, starts[:-1]) + above[1]], axis=1
    )
    names = [f"{row + 1}.png" for row in range(count)]
    return DigitAnnotations(
        names, starts, digits.astype(np.uint8), boxes.astype(np.float32), np.ceil(sizes).astype(np.int64)
    )


def _running(values: Values, starts: NDArray[np.int64], rows: NDArray[np.int64]) -> Values:
    """Sums up to and with each value, begun anew with each number."""
    sums = values.cumsum()
    before = sums[starts[:-1]] - values[starts[:-1]]
    return np.asarray(sums - before[rows])
