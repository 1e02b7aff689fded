"""CIFAR-10, in the official files, the Python version or the binary one, or with the same pixels in image files."""

from collections import Counter
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.datamodules.images.decoded_files import read_decoded
from lightning_cnn.datamodules.images.download import Missing, check_md5, fetch, not_official, unpack
from lightning_cnn.datamodules.images.folders import class_folders, scan
from lightning_cnn.datamodules.images.photo import fault_of, open_photo
from lightning_cnn.datamodules.images.safe_pickle import PickledArray, read_pickle
from lightning_cnn.errors import UserError

Official = torchvision.datasets.CIFAR10
PYTHON_FOLDER = Official.base_folder
BINARY_FOLDER = "cifar-10-batches-bin"
BINARY_ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVES = {Official.filename: Official.tgz_md5, BINARY_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"}
MD5 = {True: dict(Official.train_list), False: dict(Official.test_list)}
SIDE = 32
PIXELS = 3 * SIDE * SIDE
PARTS = {True: "train", False: "test"}
COUNTS = {True: 50_000, False: 10_000}
LOSSY = (".jpg", ".jpeg", ".jfif")
# of the pixels and classes of each part, in no order
FINGERPRINTS = {True: "2ce5464d4c80e1cb0d9e203d05a91a3e", False: "ec53789b417f3fd2095dc750759f678a"}
OFFICIAL_BYTES = 10_000 * (PIXELS + 1)  # of each binary file

Rows = tuple[NDArray[np.uint8], list[int], list[str] | None]


class CIFAR10(ImageDataModule):
    """CIFAR-10: 60,000 color photos of 32x32 pixels in ten classes, 50,000 for training and 10,000 for the test.

    The files are expected in `<root>/cifar-10-batches-py/`, as in torchvision, or in `<root>/cifar-10-batches-bin/`
    for the binary version. If neither is complete, `<root>/cifar-10-python.tar.gz` or `<root>/cifar-10-binary.tar.gz`
    is unpacked, or the Python version is downloaded. Rows keep the official order, so `val_split` first with
    `val_fraction` 0.1 holds out the first 5,000.

    Copies of the images in `<root>/train/<class>/` and `<root>/test/<class>/` are read, too, where their pixels are
    those of the official files, as in PNG or lossless WebP. Their rows are in the order of a hash of the pixels, which
    is random, but the same for all such copies.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images" (2009), chapter 3.

    Args:
        check_md5: Whether to require the official files: by their md5 (about 0.3 s in all), by the length of the files
            of the binary version, for which only the md5 of the archive is published, or by a hash of the pixels and
            classes of images in class folders.

    Raises:
        UserError: If a value lies outside its range.
    """

    num_classes = 10
    in_channels = 3
    native_size = SIDE
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, root: str | None = None, *, check_md5: bool = True, **options: Any) -> None:
        super().__init__(root, **options)
        self.check_md5 = check_md5

    def prepare_data(self) -> None:
        """Unpacks or downloads the files where they are missing.

        Raises:
            UserError: If they are missing and can't be had.
        """
        if self._folder() is not None or self._holds_classes():
            return
        inside = self.root.resolve()
        if inside.name in (PYTHON_FOLDER, BINARY_FOLDER) and inside.is_dir():
            raise UserError(f"`data.root` {self.root}: name the folder above it, `data.root` {inside.parent}")
        archive = next((path for name in ARCHIVES if (path := self.root / name).is_file()), None)
        if archive is not None:
            md5 = ARCHIVES[archive.name]
            if not check_integrity(str(archive), md5):
                raise UserError(
                    f"{archive} is incomplete or not the official file (its md5 is not {md5}): "
                    "delete it to download the data anew; "
                    f"if you trust it, unpack it: cd {self.root} && tar xzf {archive.name}"
                )
            failure = fetch(lambda folder: unpack(archive, folder), self.root)
            if failure is not None:
                raise self._missing().error(f"{archive} can't be unpacked: {failure}")
        elif self._seems_classes():
            raise self._missing().error("nothing is downloaded into a folder of such images")
        else:
            self._missing().download(lambda folder: Official(folder, download=True), self.root, self.download)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """50,000 training or 10,000 test images, uint8 `(n, 3, 32, 32)`, and their labels, in the official order."""
        folder = self._folder()
        if folder is None and self._holds_classes():
            return self._load_classes(self.root / PARTS[train], train)
        if folder is None:
            raise self._missing().error("prepare_data fetches it")
        parts = [self._read(file) for file in _files(folder, train)]
        images = torch.from_numpy(np.concatenate([pixels for pixels, _, _ in parts])).view(-1, 3, SIDE, SIDE)
        labels = torch.tensor([label for _, labels, _ in parts for label in labels])
        names = [name for _, _, names in parts for name in names or []]
        self._names[train] = names if len(names) == len(labels) else None
        return images, labels

    def _folder(self) -> Path | None:
        """The folder whose files are all there; the Python version where both are."""
        folders = (self.root / PYTHON_FOLDER, self.root / BINARY_FOLDER)
        return next((f for f in folders if all(path.is_file() for part in MD5 for path in _files(f, part))), None)

    def _holds_classes(self) -> bool:
        """Whether there are folders of images of all classes."""
        return not self._class_faults()

    def _seems_classes(self) -> bool:
        """Whether there are folders of images of half of the classes, however they are spelled."""
        there = {name.lower() for part in PARTS.values() for name in class_folders(self.root / part)}
        return 2 * len(there & {*self.class_names}) >= len(self.class_names)

    def _class_faults(self) -> list[str]:
        """How the folders of images differ from those of all classes."""
        faults = []
        for part in PARTS.values():
            there = class_folders(self.root / part)
            lacking = [name for name in self.class_names if name not in there]
            others = [name for name in there if name not in self.class_names]
            if lacking:
                faults.append(f"{part}/ has no folder of images of {', '.join(lacking)}")
            if others:
                faults.append(f"{part}/ has {', '.join(others[:5])}, not among the classes")
        return faults

    def _load_classes(self, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
        """The images in the folders of the classes, and their labels, in the order of their hashes.

        Raises:
            UserError: If an image can't be decoded, or they are not those of CIFAR-10.
        """
        found = [(file, label) for label, name in enumerate(self.class_names) for file in scan(folder / name)]
        if not found:
            raise UserError(f"{folder}: no file in the folders of the classes is an image")
        paths, labels = [file for file, _ in found], torch.tensor([label for _, label in found])

        @cache
        def order_of(images: Tensor) -> tuple[list[int], bool]:
            """The order of the hashes, and whether the images are the right ones."""
            hashes = [
                blake2b(image.tobytes() + bytes([label]), digest_size=16).digest()
                for image, (_, label) in zip(images.numpy(), found, strict=True)
            ]
            order = sorted(range(len(hashes)), key=hashes.__getitem__)
            fingerprint = blake2b(b"".join(hashes[row] for row in order), digest_size=16).hexdigest()
            return order, fingerprint == FINGERPRINTS[train] or not self.check_md5

        images = read_decoded(paths, read_square, (3, SIDE, SIDE), lambda images: order_of(images)[1])
        order, is_right = order_of(images)
        if not is_right:
            expected = COUNTS[train]
            reason = "do not have the pixels of CIFAR-10" if len(paths) == expected else f"are not {expected:,}"
            lossy = Counter(Path(path).suffix.lower() for path in paths if path.lower().endswith(LOSSY))
            reason += "".join(f"; {count:,} are {ending}, which changes pixels" for ending, count in lossy.items())
            raise UserError(
                f"{folder}: the {len(paths):,} images {reason}; use `data` ImageFolder, or accept them with "
                "`data.check_md5` false"
            )
        self._names[train] = [Path(paths[row]).relative_to(self.root).as_posix() for row in order]
        return images[order], labels[order]

    def _missing(self) -> Missing:
        there = [folder for name in (PYTHON_FOLDER, BINARY_FOLDER) if (folder := self.root / name).is_dir()]
        lost = [file for folder in there[:1] for part in MD5 for file in _files(folder, part) if not file.is_file()]
        found = f"{lost[0].relative_to(self.root)} is missing" if lost else "there is no such folder"
        if not there and self._seems_classes():
            found = f"and {'; '.join(self._class_faults())}"
        return Missing(
            "CIFAR10",
            f"in {self.root} is no complete {PYTHON_FOLDER} or {BINARY_FOLDER}, {found}",
            "copy one of the two there, or name their folder with `data.root`, or try `data` ImageFolder",
        )

    def _read(self, file: Path) -> Rows:
        """The rows of one file: pixels `(n, 3072)`, labels, and file names where it has them."""
        binary = file.parent.name == BINARY_FOLDER
        try:
            content = file.read_bytes()
            if self.check_md5 and not binary:
                check_md5(file, (MD5[True] | MD5[False])[file.name])
        except OSError as error:
            raise UserError(f"{file} can't be read ({error.strerror}): fix its permissions, or replace it") from None
        if self.check_md5 and binary and len(content) != OFFICIAL_BYTES:
            raise not_official(file, f"{len(content):,} bytes", f"{OFFICIAL_BYTES:,} bytes")
        try:
            pixels, labels, names = _from_binary(content) if binary else _from_pickle(content)
            if not labels or pixels.shape != (len(labels), PIXELS):
                raise ValueError(f"{len(labels)} labels for pixels of shape {pixels.shape}, expected (n, {PIXELS})")
            if not all(type(label) is int and 0 <= label < 10 for label in labels):
                raise ValueError("a label is not one of 0 to 9")
            if names is not None and len(names) != len(labels):
                raise ValueError(f"{len(names)} file names for {len(labels)} labels")
        except Exception as error:  # from damaged bytes pickle raises nearly everything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{file} is damaged or not a CIFAR-10 file ({reason}): replace it, or delete it to download it anew"
            ) from None
        return pixels, labels, names


def read_square(path: str) -> Tensor:
    """The pixels of an image file, uint8 `(3, 32, 32)`.

    Args:
        path: The file.

    Raises:
        UserError: If it can't be decoded, or is of another size.
    """
    try:
        image = open_photo(path, "RGB", None)
    except Exception as error:  # on a damaged file Pillow raises nearly everything
        raise UserError(f"can't decode the image {path} ({fault_of(error)}): replace it") from None
    if image.size != (SIDE, SIDE):
        raise UserError(f"{path} has {image.size[0]}x{image.size[1]} pixels, not {SIDE}x{SIDE}: use `data` ImageFolder")
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def _files(folder: Path, train: bool) -> list[Path]:
    """The files of a part, in the official order."""
    ending = ".bin" if folder.name == BINARY_FOLDER else ""
    return [folder / f"{name}{ending}" for name in MD5[train]]


def _from_binary(content: bytes) -> Rows:
    """Each row is a byte for the label and 3,072 for the pixels: all red ones, all green ones, all blue ones."""
    if len(content) % (PIXELS + 1):
        raise ValueError(f"{len(content):,} bytes are not a multiple of {PIXELS + 1:,}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, PIXELS + 1)
    return rows[:, 1:], rows[:, 0].tolist(), None


def _from_pickle(content: bytes) -> Rows:
    """A dictionary with `data`, an array `(n, 3072)` in the same order, `labels` and `filenames`."""
    batch = read_pickle(content)
    entries = {_text(key): value for key, value in batch.items()} if isinstance(batch, dict) else {}
    missing = {"data", "labels"} - set(entries)
    if missing:
        raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
    data, labels, names = entries["data"], entries["labels"], entries.get("filenames")
    if not isinstance(data, PickledArray) or not isinstance(labels, list):
        raise ValueError("data must be an array and labels a list")
    return data.pixels(), labels, None if names is None else [_text(name) for name in names]


def _text(value: Any) -> str:
    """Python 2 wrote bytes where Python 3 writes text."""
    return value.decode() if isinstance(value, bytes) else str(value)
