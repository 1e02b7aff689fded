"""The digits that `digitStruct.mat` says SVHN's images have, read by a child and kept for the next time."""

from pathlib import Path

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnn.datamodules.child_reader import read_in_child
from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations, kept
from lightning_cnn.errors import UserError

ZERO = 10  # the label of the digit 0 in the file
READER = Path(__file__).with_name("digit_records.py")  # run in a process of its own


def read_digit_struct(path: Path, cache: Path | None = None) -> DigitAnnotations:
    """The digits of all images, in the order of the file; 33,402 images take some seconds, from the cache none.

    Images without digits, or with a box that has no area, are skipped and counted in a warning.

    Args:
        path: A `digitStruct.mat`.
        cache: Folder in which the content is kept as Parquet, under the hash of the file. Where it can't be written
            to, nothing is kept.

    Returns:
        The annotations; `sizes` are 0, because the file does not know them.

    Raises:
        UserError: If the file is missing, truncated, no digitStruct, or has a label other than 1 to 10.
    """
    try:
        return _usable(kept(cache, f"{path.parent.name}-digits", path, lambda: _parse(path)), path)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): copy it there, or fix its permissions") from None


def _parse(path: Path) -> DigitAnnotations:
    try:
        found, starts, fields = read_in_child(READER, path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is truncated or not a digitStruct.mat ({str(error)[:160]}): unpack the official archive again"
        ) from None
    names: list[str] = found.tolist()
    label, left, top, width, height = fields
    wrong = np.flatnonzero(~np.isin(label, np.arange(1, ZERO + 1)))
    if len(wrong):
        name = names[int(np.searchsorted(starts, wrong[0], side="right")) - 1]
        raise UserError(
            f"{path}: {len(wrong):,} of {len(label):,} labels are outside 1 to 10, where 10 means 0 (first "
            f"{label[wrong[0]]:g} in {name}): correct them, or unpack the file anew"
        )
    boxes = np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)
    return DigitAnnotations(
        names, starts, (label % ZERO).astype(np.uint8), boxes, np.zeros((len(names), 2), dtype=np.int64)
    )


def _usable(annotations: DigitAnnotations, path: Path) -> DigitAnnotations:
    """Without the images whose boxes can't be used; says how many they are."""
    empty, faulty = annotations.lengths == 0, annotations.faulty
    for rows, reason in ((empty, "without digits"), (faulty, "with a box of no width or height")):
        if rows.any():
            first = annotations.names[int(rows.argmax())]
            rank_zero_warn(f"{path}: skipped {rows.sum():,} of {len(rows):,} images {reason} (first {first})")
    good = np.flatnonzero(~(empty | faulty))
    if not len(good):
        raise UserError(f"{path} has no image with digits: unpack it anew from the official archive")
    return annotations if len(good) == len(annotations) else annotations.select(good)
