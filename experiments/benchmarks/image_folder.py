"""Folders of many images: the first start, the second, and an epoch, against torchvision's ImageFolder with workers.

    uv run experiments/benchmarks/image_folder.py --root FOLDER
    uv run experiments/benchmarks/image_folder.py --files 1000000

FOLDER holds `train/<class>/`, such as CIFAR-10 as lossless WebP. With `--files` small images are written first, by
links to a few, into a temporary folder, and only the starts are timed. An epoch reads and scales all batches and trains
nothing. Where webdataset is installed (`uv run --with webdataset`), it reads the same files from a tar archive.
"""

import argparse
import importlib.util
import io
import logging
import os
import random
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as Torchvision
from torchvision.transforms import v2

from lightning_cnn.datamodules import ImageFolder

BATCH, SIDE = 128, 32
TRANSFORM = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])


def write_files(root: Path, count: int) -> None:
    """Writes images of two classes: ten of each, and links to them."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for number in range(count // 2):
            file = folder / f"{number:07d}.webp"
            if number < 10:
                Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file, lossless=True)
            else:
                os.link(folder / f"{number % 10:07d}.webp", file)


def start(root: Path, **options: object) -> tuple[float, ImageFolder]:
    """Seconds until the images can be read, and the data."""
    begin = time.perf_counter()
    data = ImageFolder(str(root), image_size=SIDE, batch_size=BATCH, val_fraction=0.01, **options)  # type: ignore[arg-type]
    data.setup("fit")
    return time.perf_counter() - begin, data


def epoch(data: ImageFolder) -> float:
    """Seconds to read and scale the training part once."""
    begin = time.perf_counter()
    for images, _ in data.train_dataloader():
        data.preprocessing.scale(images.float() / 255)
    return time.perf_counter() - begin


def torchvision_epoch(root: Path, workers: int) -> float:
    """The same with torchvision's data set and its transforms."""
    loader = DataLoader(Torchvision(str(root / "train"), TRANSFORM), BATCH, shuffle=True, num_workers=workers)
    begin = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - begin


def write_shards(root: Path, folder: Path, count: int) -> list[str]:
    """Writes tar archives of the training images in random order, as webdataset wants them; their paths."""
    classes = sorted(path.name for path in (root / "train").iterdir())
    files = [(path, classes.index(path.parent.name)) for path in sorted((root / "train").rglob("*.*"))]
    random.Random(0).shuffle(files)
    shards = [str(folder / f"{shard}.tar") for shard in range(count)]
    for shard, path in enumerate(shards):
        with tarfile.open(path, "w") as archive:
            for number, (file, label) in enumerate(files[shard::count]):
                archive.add(file, f"{number:07d}{file.suffix}")
                entry = tarfile.TarInfo(f"{number:07d}.cls")
                entry.size = len(str(label))
                archive.addfile(entry, io.BytesIO(str(label).encode()))
    return shards


def webdataset_epoch(shards: list[str]) -> float:
    """The same with webdataset, a worker for each archive."""
    import webdataset

    data = webdataset.WebDataset(shards, shardshuffle=False).shuffle(1000).decode("pil")
    data = data.to_tuple("webp;png;jpg;jpeg", "cls").map_tuple(TRANSFORM, int).batched(BATCH)
    begin = time.perf_counter()
    for _ in webdataset.WebLoader(data, batch_size=None, num_workers=len(shards)):
        pass
    return time.perf_counter() - begin


def run() -> None:
    """Times the starts and the epochs."""
    parser = argparse.ArgumentParser(description="Times folders of many images.")
    parser.add_argument("--root", type=Path, help="folder that holds train/<class>/")
    parser.add_argument("--files", type=int, default=0, help="write so many files into a temporary folder instead")
    parser.add_argument("--turns", type=int, default=3, help="how many turns of the epochs")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        root = options.root or Path(folder)
        if options.files:
            write_files(root, options.files)
        first, data = start(root)
        rows, cores = len(data.dataset("train").dataset), torch.get_num_threads()
        print(
            f"{rows:,} images, {cores} cores: first start {first:.1f} s ({rows / first / cores:,.0f} a core and second)"
        )
        seconds = [start(root)[0] for _ in range(2)]
        print(f"second start {min(seconds):.1f} s")
        _, mapped = start(root, max_memory=0.0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"memory at the peak {peak:.2f} GiB, of which pixels {rows * 3 * SIDE**2 / 2**30:.2f} GiB")
        if options.files:
            return
        ways: dict[str, Callable[[], float]] = {
            "torchvision": lambda: torchvision_epoch(root, cores),
            "in memory": lambda: epoch(data),
            "from the file": lambda: epoch(mapped),
        }
        if importlib.util.find_spec("webdataset"):
            shards = write_shards(root, Path(folder), cores)
            ways["webdataset"] = lambda: webdataset_epoch(shards)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.turns):
            for name, way in ways.items():
                times[name].append(way())
        for name, found in times.items():
            ratio = statistics.median(a / b for a, b in zip(times["torchvision"], found, strict=True))
            print(f"epoch {name:<14} {statistics.median(found):6.2f} s, {ratio:.1f} times torchvision's speed")


if __name__ == "__main__":
    run()
