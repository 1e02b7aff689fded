"""Small data sets of real digits, written in the true formats."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits


def digits(count: int, first: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Real digits of 28x28 pixels, uint8 `(count, 28, 28)`, and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    chosen = slice(first, first + count)
    images = (pixels[chosen].reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR)) for image in images]
    return np.stack(large), labels[chosen].astype(np.uint8)


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
