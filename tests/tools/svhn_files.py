"""Files in the official formats of SVHN: `digitStruct.mat` as MATLAB 7.3 writes it, PNGs, and `*_32x32.mat`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from h5py import h5a, h5d, h5g, h5p, h5r, h5s, h5t
from numpy.typing import NDArray
from PIL import Image
from small_data import digits

FIELDS = ("height", "left", "top", "width", "label")
BASE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
COMPACT = 60_000  # bytes up to which the values stand in the header of their object
TEXT = np.dtype("<u2")

Digit = Sequence[float]  # label as in the file (10 means 0), left, top, width, height
Record = tuple[str, Sequence[Digit]]


def write_digit_struct(path: Path, records: Iterable[Record], fields: Sequence[str] = FIELDS) -> Path:
    """Writes a `digitStruct.mat` with every object where MATLAB 7.3 puts it.

    A struct array is a group with a data set of references for each field, and what they point to lies in `#refs#`:
    a text for a name, a group for the boxes of an image. Its fields are single numbers where the image has one digit,
    and otherwise references to numbers. An image without digits has an empty struct.

    Args:
        path: The file.
        records: Name and digits of each image.
        fields: What is written of each digit.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver="earliest", userblock_size=512) as file:
        writer = _Writer(file)
        names, boxes = [], []
        for name, digits in records:
            names.append(writer.text(name))
            boxes.append(writer.boxes(digits, fields))
        struct = writer.group(file.id, "digitStruct", ("name", "bbox"))
        writer.references(struct, "name", names)
        writer.references(struct, "bbox", boxes)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Oct  3 12:00:00 2011 HDF5 schema 1.00 ."
    with path.open("r+b") as raw:
        raw.write(header.ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


class _Writer:
    """Adds objects to `#refs#`, by the low-level interface: a full file has half a million of them."""

    def __init__(self, file: h5py.File) -> None:
        self.refs = file.create_group("#refs#").id
        self.count = 0
        self.compact = h5p.create(h5p.DATASET_CREATE)
        self.compact.set_layout(h5d.COMPACT)
        self.plain = h5p.create(h5p.DATASET_CREATE)
        self.scalar = h5s.create(h5s.SCALAR)

    def text(self, value: str) -> h5r.Reference:
        """A name: 16-bit letters in a column."""
        found = self._dataset(self.refs, self._name(), h5t.STD_U16LE, np.array([[ord(c)] for c in value], TEXT))
        self._mark(found, "char")
        return self._last()

    def number(self, value: float) -> h5r.Reference:
        """A number: a 1x1 matrix."""
        self._mark(self._dataset(self.refs, self._name(), h5t.IEEE_F64LE, np.array([[value]])), "double")
        return self._last()

    def boxes(self, digits: Sequence[Digit], fields: Sequence[str]) -> h5r.Reference:
        """The boxes of an image."""
        if not digits:
            empty = self._dataset(self.refs, self._name(), h5t.STD_U64LE, np.zeros(2, np.uint64))
            self._mark(empty, "struct")
            one = h5a.create(empty, b"MATLAB_empty", h5t.STD_U8LE, self.scalar)
            one.write(np.array(1, np.uint8))
            return self._last()
        columns = dict(zip(("label", "left", "top", "width", "height"), zip(*digits, strict=True), strict=True))
        pointed = {name: [self.number(v) for v in columns[name]] if len(digits) > 1 else [] for name in fields}
        group = self.group(self.refs, self._name().decode(), fields)
        reference = self._last()
        for name in fields:
            if len(digits) > 1:
                self.references(group, name, pointed[name])
            else:
                number = self._dataset(group, name.encode(), h5t.IEEE_F64LE, np.array([[columns[name][0]]]))
                self._mark(number, "double")
        return reference

    def group(self, where: h5g.GroupID, name: str, fields: Sequence[str]) -> h5g.GroupID:
        """A struct."""
        group = h5g.create(where, name.encode())
        self._mark(group, "struct")
        letters = np.empty(len(fields), object)
        letters[:] = [np.array(list(field), "S1") for field in fields]
        h5py.Group(group).attrs.create("MATLAB_fields", letters, dtype=h5py.vlen_dtype(np.dtype("S1")))
        return group

    def references(self, where: h5g.GroupID, name: str, pointed: Sequence[h5r.Reference]) -> None:
        """A column of references."""
        column = np.array(pointed, h5py.ref_dtype).reshape(-1, 1)
        self._dataset(where, name.encode(), h5t.STD_REF_OBJ, column)

    def _name(self) -> bytes:
        """The next free name: `b`, `c`, ..., `9`, `ba`, ..."""
        self.count += 1
        rest, letters = self.count, ""
        while rest:
            rest, digit = divmod(rest, len(BASE))
            letters = BASE[digit] + letters
        self.latest = letters.encode()
        return self.latest

    def _last(self) -> h5r.Reference:
        return h5r.create(self.refs, self.latest, h5r.OBJECT)

    def _dataset(self, where: h5g.GroupID, name: bytes, kind: h5t.TypeID, values: NDArray[np.generic]) -> h5d.DatasetID:
        small = values.size * kind.get_size() < COMPACT
        space = h5s.create_simple(values.shape, values.shape)
        found = h5d.create(where, name, kind, space, self.compact if small else self.plain)
        found.write(h5s.ALL, h5s.ALL, values)
        return found

    def _mark(self, where: h5d.DatasetID | h5g.GroupID, matlab_class: str) -> None:
        kind = h5t.C_S1.copy()
        kind.set_size(len(matlab_class))
        # as it is: h5py would end the text with a zero, for which there is no room
        h5a.create(where, b"MATLAB_class", kind, self.scalar).write(np.array(matlab_class.encode()), kind)


def write_cropped(path: Path, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Path:
    """Writes a `*_32x32.mat`.

    Args:
        path: The file.
        images: uint8 `(n, 3, 32, 32)`.
        labels: Digits 0 to 9.

    Returns:
        The path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    coded = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(path, {"X": np.asfortranarray(images.transpose(2, 3, 1, 0)), "y": coded}, do_compression=True)
    return path


def write_folder(folder: Path, photos: Sequence[NDArray[np.uint8]], records: Sequence[Sequence[Digit]]) -> Path:
    """Writes `1.png`, `2.png`, ... and their `digitStruct.mat`.

    Args:
        folder: Such as `<root>/train`.
        photos: uint8, each `(height, width, 3)`.
        records: The digits of each.

    Returns:
        The folder.
    """
    names = [f"{number}.png" for number in range(1, 1 + len(photos))]
    write_digit_struct(folder / "digitStruct.mat", zip(names, records, strict=True))
    for name, photo in zip(names, photos, strict=True):
        Image.fromarray(photo).save(folder / name)
    return folder


def write_numbers(root: Path, counts: dict[str, int] | None = None, seed: int = 0) -> Path:
    """Numbers of one to three real digits side by side on photos of various sizes. Returns the root."""
    random = np.random.default_rng(seed)
    images, labels = digits(500)
    for part, count in (counts or {"train": 40, "test": 12}).items():
        photos, records = [], []
        for row in range(count):
            chosen = random.integers(0, len(images), 1 + row % 3)
            left, top = random.integers(3, 12, 2).tolist()
            photo = np.full((top + 28 + 5, left + 28 * len(chosen) + 4, 3), 40, dtype=np.uint8)
            own: list[Digit] = []
            for place, pick in enumerate(chosen.tolist()):
                photo[top : top + 28, left + 28 * place : left + 28 * (place + 1)] = images[pick][..., None] // 2 + 100
                own.append((int(labels[pick]) or 10, left + 28 * place, top, 28, 28))
            photos.append(photo)
            records.append(own)
        write_folder(root / part, photos, records)
    return root


def cropped(count: int, first: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Real digits as colour images of 32x32 pixels, uint8 `(count, 3, 32, 32)`, and their labels."""
    images, labels = digits(count, first)
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return np.stack([framed, 255 - framed, framed // 2], axis=1), labels


def write_svhn(root: Path, train: int = 60, test: int = 20) -> Path:
    write_cropped(root / "train_32x32.mat", *cropped(train))
    write_cropped(root / "test_32x32.mat", *cropped(test, first=1000))
    return root
