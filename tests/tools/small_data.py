"""Small data sets of real digits and photos, written in the true formats."""

import io
import struct
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def digits(count: int, first: int = 0) -> Images:
    """Real digits of 28x28 pixels, uint8 `(count, 28, 28)`, and their labels."""
    images, labels = _all_digits()
    chosen = slice(first, first + count)
    return images[chosen].copy(), labels[chosen].copy()


@lru_cache
def _all_digits() -> Images:
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR)) for image in images]
    return np.stack(large), labels.astype(np.uint8)


def write_idx(path: Path, content: NDArray[np.uint8]) -> None:
    """Writes an idx file: magic number, dimensions, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB", 0, 8, content.ndim) + struct.pack(f">{content.ndim}I", *content.shape)
    path.write_bytes(header + content.tobytes())


def write_mnist(root: Path, name: str = "MNIST", train: int = 600, test: int = 200) -> Path:
    """Writes `<root>/<name>/raw/` with four idx files. Returns the root."""
    for part, (images, labels) in (("train", digits(train)), ("t10k", digits(test, first=1000))):
        write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", labels)
    return root


def write_image_folder(
    root: Path, classes: int = 3, count: int = 8, parts: tuple[str, ...] = ("train", "test")
) -> Path:
    """Writes `<root>/<part>/<class>/<number>.png` with real digits of the first classes. Returns the root."""
    images, labels = digits(1500)
    for part_number, part in enumerate(parts):
        for label in range(classes):
            folder = root / part / f"digit_{label}"
            folder.mkdir(parents=True)
            for number, image in enumerate(images[labels == label][part_number * count : (part_number + 1) * count]):
                Image.fromarray(image).save(folder / f"{number:03d}.png")
    return root


CIFAR10_NAMES = b"airplane automobile bird cat deer dog frog horse ship truck".split()
CIFAR10_PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "cifar10" / "cifar10_lossless_webp.zip"
CIFAR10_COUNT = {"train": 1000, "test": 200}


@lru_cache
def cifar10_photos(part: str) -> Images:
    """Photos of the `train` or the `test` part, uint8 `(n, 3, 32, 32)`, and their labels, as many of each class.

    Where the real ones are not at hand, these are drawn: a square for each image, whose place and color say the class.
    """
    if CIFAR10_PHOTOS.is_file():
        with zipfile.ZipFile(CIFAR10_PHOTOS) as archive:
            names = cifar10_names(archive, part)
            photos = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
        classes = [CIFAR10_NAMES.index(name.split("/")[1].encode()) for name in names]
        return np.stack(photos).transpose(0, 3, 1, 2), np.array(classes, dtype=np.uint8)
    random = np.random.default_rng(part == "test")
    labels = random.integers(0, 10, 2000, dtype=np.uint8)
    images = random.integers(60, 120, (2000, 3, 32, 32), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(1, 7) + 16 * (label % 2), random.integers(1, 20)
        image[label // 2 % 3, top : top + 9, left : left + 9] = 60 * (label // 6) + 190
    return images, labels


def cifar10_names(archive: zipfile.ZipFile, part: str) -> list[str]:
    """The first photos of each class in the archive of the real ones, the classes by turns."""
    names: dict[str, list[str]] = {}
    for name in sorted(archive.namelist()):
        if name.startswith(f"{part}/"):
            names.setdefault(name.split("/")[1], []).append(name)
    count = CIFAR10_COUNT[part] // len(names)
    return [name for turn in zip(*(of_class[:count] for of_class in names.values()), strict=True) for name in turn]


def write_cifar10(root: Path, train: int = 500, test: int = 100, binary: bool = False) -> Path:
    """Writes all official files with few photos in each: `cifar-10-batches-py/` or `cifar-10-batches-bin/`.

    To be read with `--data.check_md5 false`.

    Args:
        root: Where the folder is put.
        train: Number of training photos, spread over the five files.
        test: Number of test photos.
        binary: Whether to write the binary version.

    Returns:
        The root.
    """
    folder = root / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = cifar10_photos("train")
    parts = [
        (f"data_batch_{number + 1}", f"training batch {number + 1} of 5", images[rows], labels[rows])
        for number, rows in enumerate(np.array_split(np.arange(train), 5))
    ]
    images, labels = cifar10_photos("test")
    parts.append(("test_batch", "testing batch 1 of 1", images[:test], labels[:test]))
    for name, title, images, labels in parts:
        pixels = images.reshape(len(images), -1)
        if binary:
            (folder / f"{name}.bin").write_bytes(np.column_stack([labels, pixels]).tobytes())
            continue
        names = [b"%s_s_%06d.png" % (CIFAR10_NAMES[label], number) for number, label in enumerate(labels)]
        batch = {"batch_label": title.encode(), "labels": labels.tolist(), "data": pixels, "filenames": names}
        (folder / name).write_bytes(python2_pickle(batch))
    if binary:
        (folder / "batches.meta.txt").write_bytes(b"\n".join(CIFAR10_NAMES) + b"\n\n")
    else:
        meta = {"num_cases_per_batch": 10000, "label_names": CIFAR10_NAMES, "num_vis": 3072}
        (folder / "batches.meta").write_bytes(python2_pickle(meta))
    return root


def write_cifar10_folder(root: Path, train: int = 20, test: int = 20) -> Path:
    """Writes `<root>/<part>/<class>/<number>.png` with so many photos of each class. Returns the root."""
    for part, count in (("train", train), ("test", test)):
        images, labels = cifar10_photos(part)
        for label, name in enumerate(CIFAR10_NAMES):
            folder = root / part / name.decode()
            folder.mkdir(parents=True)
            for number, image in enumerate(images[labels == label][:count]):
                Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:03d}.png")
    return root


def python2_pickle(value: object) -> bytes:
    """A pickle as cPickle of Python 2 wrote it, protocol 2; Python 3 would write text and arrays in another way."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(key.encode()) + _opcodes(entry) for key, entry in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, np.ndarray):
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes(b"b") + b"tR"
        kind = b"cnumpy\ndtype\n" + _opcodes((value.dtype.str[1:].encode(), 0, 1)) + b"R"
        kind += _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
        return empty + b"(K\x01" + _opcodes(value.shape) + kind + b"\x89" + _opcodes(value.tobytes()) + b"tb"
    if value is None:
        return b"N"
    assert isinstance(value, int)
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
