"""The records of `digitStruct.mat`, which says where the digits of SVHN's images lie, in seconds.

The file is HDF5 in the layout of MATLAB 7.3. Every number of an image with two digits or more is an object of its own,
366,000 of them in the training part, and a reference to it stands where the number should be. To open object by object
takes minutes. A reference is the place of the object in the file, and all these objects have the same header: so
h5py lists where the fields of each image lie, and what is there is taken from the bytes of the file, all at once.

A child of `child_reader.py` does this; nothing of this package is imported here.
"""

import struct
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5g, h5r, h5s, h5t
from numpy.typing import NDArray

FIELDS = ("label", "left", "top", "width", "height")
# messages in the header of an object, and what they must begin with: the type of the data is a double or a reference,
# and the data stand in the header (HDF5 file format specification, version 3, sections IV.A.2.d and IV.A.2.i)
TYPE, LAYOUT = 3, 8
DOUBLE = bytes.fromhex("11203f000800000000004000340b0034ff030000")
REFERENCE = bytes.fromhex("1700000008000000")
COMPACT = b"\x03\x00"
LONGEST = 256  # bytes of a header in which the data must begin
HEADERS = 16  # kinds of headers that are told apart; other objects are read by h5py
SLOW = 2000  # images read by h5py that are worth a word
CHECKED = 50  # images whose numbers are read by h5py, too

Values = NDArray[np.float64]


def read(path: str) -> tuple[NDArray[Any], NDArray[np.int64], Values]:
    """The digits of all images, in the order of the file.

    Args:
        path: A `digitStruct.mat`.

    Returns:
        The names of the images, `(n,)`; where the digits of each begin and the last ones end, `(n + 1,)`; and label,
        left, top, width and height of all digits, `(5, m)`.

    Raises:
        Exception: Nearly any kind, if the file is damaged or none of these.
    """
    with h5py.File(path, locking=False) as file:  # shared folders often know no locks
        records = _Records(file, Path(path))
        columns = records.read()
        starts = np.cumsum([0, *(column.shape[1] for column in columns)], dtype=np.int64)
        return np.array(records.names), starts, np.concatenate([np.empty((5, 0)), *columns], axis=1)


class _Records:
    """The records of an open file."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.file = file
        self.bytes = np.memmap(path, np.uint8, "r")
        struct = file["digitStruct"]
        self.names = [self._text(reference) for reference in struct["name"][()].ravel()]
        self.boxes = struct["bbox"][()].ravel()
        if len(self.names) != len(self.boxes):
            raise ValueError(f"{len(self.names)} names for {len(self.boxes)} sets of boxes")
        if not self.names:
            raise ValueError("it has no records")
        for name in self.names:
            if not name or Path(name).name != name or not name.isprintable():
                raise ValueError(f"{name[:40]!r} is no file name")

    def read(self) -> list[Values]:
        """The five fields of the digits of each image, `(5, m)`."""
        count = len(self.names)
        fields = np.array([self._places(row) for row in range(count)], dtype=np.int64).reshape(count, 5)
        data, sizes, pointing = self._objects(fields.T)
        known = (sizes > 0).all(0) & (sizes == sizes[0]).all(0) & (pointing == pointing[0]).all(0)
        known &= pointing[0] | (sizes[0] == 1)
        lengths = np.where(known, sizes[0], 0)
        starts = np.concatenate([[0], lengths.cumsum()])
        rows = np.repeat(np.arange(count), lengths)
        bits = self._words(data[:, rows] + 8 * (np.arange(starts[-1]) - starts[rows]))
        values, far = bits.view(np.float64), pointing[0, rows]
        data, sizes, pointing = self._objects(bits[:, far].astype(np.int64))
        values[:, far] = np.where((sizes == 1) & ~pointing, self._words(data).view(np.float64), np.nan)
        known[rows[np.isnan(values).any(0)]] = False
        columns = np.split(values, starts[1:-1], axis=1)
        sample = np.linspace(0, count - 1, min(count, CHECKED)).astype(int)
        if not all(np.array_equal(columns[row], self._plain(row)) for row in sample[known[sample]].tolist()):
            known[:] = False
        slow = np.flatnonzero(~known)
        if len(slow) > SLOW:
            print(f"{len(slow):,} images are read digit by digit, which takes minutes", file=sys.stderr, flush=True)
        for row in slow.tolist():
            columns[row] = self._plain(row)
        return columns

    def _text(self, reference: h5r.Reference) -> str:
        dataset = h5r.dereference(reference, self.file.id)
        letters = np.empty(dataset.shape, "<u2")
        dataset.read(h5s.ALL, h5s.ALL, letters, h5t.STD_U16LE)
        return letters.tobytes().decode("utf-16-le")

    def _places(self, row: int) -> list[int]:
        """Where the five fields of an image lie; 0 where it has none."""
        group = h5r.dereference(self.boxes[row], self.file.id)
        if not isinstance(group, h5g.GroupID):  # MATLAB's empty struct array
            return [0] * 5
        found: dict[str, int] = {}
        group.links.iterate(lambda name, link: found.__setitem__(name.decode(), link.u), info=True)
        missing = [field for field in FIELDS if field not in found]
        if missing:
            raise ValueError(f"the boxes of {self.names[row]} have no {missing[0]}")
        return [found[field] for field in FIELDS]

    def _objects(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Takes objects apart whose header is of a kind that one of them has shown.

        Args:
            places: Where each lies, of any shape.

        Returns:
            Where the data of each begins; how many words of 8 bytes it has, 0 where the header is not understood;
            whether they are references and not numbers.
        """
        shape, places = places.shape, places.ravel() + self.file.userblock_size
        data, sizes, pointing = np.zeros_like(places), np.zeros_like(places), np.zeros(len(places), dtype=bool)
        left = np.flatnonzero((places > self.file.userblock_size) & (places < len(self.bytes) - LONGEST))
        known = 0
        while len(left) and known < HEADERS:
            found = _header(self.bytes[places[left[0]] :][:LONGEST].tobytes())
            if found is None:
                left = left[1:]
                continue
            known += 1
            first, last, is_reference, pattern = found
            headers = np.lib.stride_tricks.sliding_window_view(self.bytes, last + 12)[places[left]]
            alike = (headers[:, 0] == 1) & (headers[:, first : last + 2] == pattern).all(1)
            alike &= (headers[:, last + 8] == 3) & (headers[:, last + 9] == 0)
            same = left[alike]
            data[same] = places[same] + last + 12
            sizes[same] = np.ascontiguousarray(headers[alike, last + 10 :]).view("<u2").ravel() // 8
            pointing[same] = is_reference
            left = left[~alike]
        return data.reshape(shape), sizes.reshape(shape), pointing.reshape(shape)

    def _words(self, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The words of 8 bytes at some places, in the same shape."""
        places = np.minimum(places, len(self.bytes) - 8)
        return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(self.bytes, 8)[places]).view("<u8")[..., 0]

    def _plain(self, row: int) -> Values:
        """The fields of an image, `(5, m)`, read object by object."""
        group = self.file[self.boxes[row]]
        if not isinstance(group, h5py.Group):
            return np.empty((5, 0))
        columns = [group[field][()].ravel() for field in FIELDS]
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"the boxes of {self.names[row]} differ in number from field to field")
        if any("MATLAB_empty" in group[field].attrs for field in FIELDS):
            return np.empty((5, 0))
        return np.array(
            [[self.file[v][()].item() if isinstance(v, h5r.Reference) else v for v in column] for column in columns],
            dtype=np.float64,
        )


def _header(header: bytes) -> tuple[int, int, bool, NDArray[np.uint8]] | None:
    """Reads the messages of an object's header, if its data are numbers or references that stand in the header itself.

    Returns:
        Where the message of the data's type begins and where that of the data; whether they are references; and the
        bytes from the first to the kind of the second, which objects of the same kind share.
    """
    position, first, is_reference = 16, 0, False
    while header[0] == 1 and position + 12 <= len(header):
        message, size = struct.unpack_from("<HH", header, position)
        content = header[position + 8 : position + 8 + size]
        if message == TYPE and content.startswith((DOUBLE, REFERENCE)):
            first, is_reference = position, content.startswith(REFERENCE)
        elif message == LAYOUT:
            if not first or content[:2] != COMPACT:
                return None
            return first, position, is_reference, np.frombuffer(header[first : position + 2], np.uint8)
        position += 8 + size
    return None
