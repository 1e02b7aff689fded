"""Small image sets in their true formats, and what their tests ask of them."""

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import write_cifar10
from svhn_files import write_numbers, write_svhn

from lightning_cnn.datamodules import (
    CIFAR10,
    SVHN,
    ImageDataModule,
    SyntheticBoxes,
    SyntheticNumbers,
    SyntheticShipBoxes,
    SyntheticShips,
)
from lightning_cnn.datamodules.batches import (
    Batch,
)
from lightning_cnn.errors import UserError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def write_idx(path: Path, values: Pixels) -> None:
    """As http://yann.lecun.com/exdb/mnist describes it: 0, 0, type 8, dimensions; the sizes; the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(root: Path, train: int = 50, test: int = 20, name: str = "MNIST") -> None:
    """The top left pixel of an image is its number, and that of a test image its number after 200."""
    for part, count, first in (("train", train, 0), ("t10k", test, 200)):
        images = np.random.default_rng(first).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = first + np.arange(count)
        write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)


def write_folder(root: Path, counts: dict[str, int], side: int = 12, ending: str = "png") -> None:
    """Noise as `<root>/<part>/<class>/<number>.png`, with `counts` images in each `<part>/<class>`."""
    for seed, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        for number in range(count):
            pixels = random.integers(0, 256, (side, side + number % 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number:03d}.{ending}")


def write_all(root: Path) -> None:
    """One root that every data set of ours can read."""
    write_mnist(root)
    write_mnist(root, name="FashionMNIST")
    write_cifar10(root, train=50, test=20)
    write_folder(root, {f"{part}/{name}": 8 for part in ("train", "test") for name in ("cat", "dog")})
    write_table(root, "train/cat", "test/dog")
    write_svhn(root)
    write_numbers(root)
    write_boxes(root)


def write_boxes(root: Path) -> None:
    """`images/` and `labels/` with a light rectangle in each image, as YOLO has them, of two classes."""
    write_folder(root, {"images/train": 12, "images/test": 8}, side=24)
    for part in ("train", "test"):
        (root / "labels" / part).mkdir(parents=True)
        for number, path in enumerate(sorted((root / "images" / part).iterdir())):
            pixels = np.asarray(Image.open(path)).copy()
            pixels[6:18, 4:12] = 255
            Image.fromarray(pixels).save(path)
            height, width, _ = pixels.shape
            box = f"{8 / width} {12 / height} {8 / width} {12 / height}"
            (root / "labels" / part / f"{path.stem}.txt").write_text(f"{number % 2} {box}\n")
    (root / "data.yaml").write_text("names: [even, odd]\n")


def write_table(root: Path, *folders: str) -> None:
    """`<root>/labels.csv` of the images in some folders, with the labels `odd`, `large` and `test`."""
    lines = ["file,part,odd,large,test"]
    for folder in folders:
        for number, path in enumerate(sorted((root / folder).iterdir())):
            part = folder.partition("/")[0]
            lines.append(f"{folder}/{path.name},{part},{number % 2},{int(number > 3)},{int(part == 'test')}")
    (root / "labels.csv").write_text("\n".join(lines))


def make(kind: type[ImageDataModule], root: Path, **options: Any) -> ImageDataModule:
    """Any data set of ours; the small files are not the official ones, and few images are drawn."""
    if kind in (CIFAR10, SVHN):
        options["check_md5"] = False
    if kind in (SyntheticShips, SyntheticShipBoxes):
        options |= {"train_images": 40, "test_images": 20}
    if kind in (SyntheticNumbers, SyntheticBoxes):
        options |= {"train_images": 40, "test_images": 20, "handwriting": 0.0}
    return kind(root=str(root), **options)


def numbers(loader: Iterable[Batch]) -> list[int]:
    """The top left pixels: the numbers that `write_mnist` gave the images."""
    return [int(number) for images, _ in loader for number in images[:, 0, 0, 0]]


def equal(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    one, other = list(first), list(second)
    return len(one) == len(other) and all(
        torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True)
    )


def ready(data: ImageDataModule, stage: str = "fit") -> ImageDataModule:
    data.setup(stage)
    return data


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def two_classes(root: Path) -> Path:
    write_folder(root, {"train/cat": 6, "train/dog": 5})
    return root
