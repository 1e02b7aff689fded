"""Decoders of image files: images a core and second, and whether their pixels are those of Pillow.

    uv run --with imagecodecs,opencv-python-headless,pyturbojpeg experiments/benchmarks/decoders.py FOLDER [FOLDER ...]

A FOLDER holds image files of one format, at any depth. What is not installed, or does not know the format, is left out.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from lightning_cnn.datamodules.images.photo import open_photo

Pixels = NDArray[np.uint8]
Decoders = dict[str, Callable[[bytes], Pixels]]


def pillow(data: bytes) -> Pixels:
    """Pillow, which this framework uses."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def ours(data: bytes) -> Pixels:
    """What this framework does with a file: Pillow, turned as its camera was, in front of a background."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(open_photo(image, "RGB"))


def torchvision(data: bytes) -> Pixels:
    """The decoders of torchvision."""
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return np.asarray(decode_image(raw, ImageReadMode.RGB).permute(1, 2, 0))


def decoders() -> Decoders:
    """Those that are installed."""
    found: Decoders = {"Pillow": pillow, "ours": ours, "torchvision": torchvision}
    try:
        import cv2

        found["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    except ImportError:
        pass
    try:
        import imagecodecs

        found["imagecodecs"] = lambda data: imagecodecs.imread(data)[..., :3]
    except ImportError:
        pass
    try:
        from turbojpeg import TJPF_RGB, TurboJPEG

        turbo: Any = TurboJPEG()
        found["PyTurboJPEG"] = lambda data: turbo.decode(data, pixel_format=TJPF_RGB)
    except (ImportError, RuntimeError):
        pass
    return found


def compare(folder: Path, count: int, turns: int) -> None:
    """Prints a line for each decoder.

    Args:
        folder: Holds the files.
        count: How many of them are read.
        turns: How many times; the decoders take turns.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]
    found = decoders()
    expected = [pillow(data) for data in files]
    largest: dict[str, int] = {}
    for name, decode in [*found.items()]:
        try:
            pairs = zip(expected, map(decode, files), strict=True)
            largest[name] = max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs)
        except Exception as error:  # each library raises its own
            print(f"{name:<12} not of these files ({str(error).splitlines()[0][:60]})")
            del found[name]
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(turns):
        for name, decode in found.items():
            begin = time.perf_counter()
            for data in files:
                decode(data)
            times[name].append(time.perf_counter() - begin)
    print(
        f"{folder.name}: {len(files)} files of {paths[0].suffix}, {expected[0].shape[1]}x{expected[0].shape[0]} pixels"
    )
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["Pillow"], seconds, strict=True))
        rate = len(files) / statistics.median(seconds)
        print(f"{name:<12} {rate:8,.0f} a second, {ratio:.2f} of Pillow, pixels differ by at most {largest[name]}")


def run() -> None:
    """Compares the decoders."""
    parser = argparse.ArgumentParser(description="Times decoders of image files, one core each.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders of image files, each of one format")
    parser.add_argument("--count", type=int, default=2000, help="how many files of each")
    parser.add_argument("--turns", type=int, default=3, help="how many times")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for folder in options.folders:
        compare(folder, options.count, options.turns)


if __name__ == "__main__":
    run()
