"""Small sets of images with masks, in the formats in which others write them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lightning_cnn.datamodules import CamVid, MaskDataModule, Membrane, RunLengthMasks, SegmentationFolder
from lightning_cnn.options import IGNORE

Pixels = NDArray[np.uint8]
NAMES = ["background", "disc", "square"]
COLORS = {"background": [0, 0, 0], "disc": [128, 0, 0], "square": [0, 128, 64], "ignore": [224, 224, 192]}
SIZES = ((40, 56), (48, 48), (70, 33))  # height and width


def scene(height: int, width: int, seed: int, classes: int = 3, void: int = IGNORE) -> tuple[Pixels, Pixels]:
    """An RGB image and its mask: discs and squares on noise; where two of them overlap is void."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for number in range(4):
        label, radius = 1 + number % (classes - 1), random.uniform(5, 9)
        apart = abs(rows - random.uniform(0, height)), abs(columns - random.uniform(0, width))
        inside = (np.hypot(*apart) if label % 2 else np.maximum(*apart)) < radius
        mask[inside] = np.where(mask[inside] > 0, void, label)
    image = random.integers(0, 60, (height, width, 3)) + 60 * np.minimum(mask, 3)[..., None]
    return image.astype(np.uint8), mask


def write_pairs(images: Path, masks: Path, count: int = 6, kind: str = "index", seed: int = 0, **options: Any) -> None:
    """Images of three sizes with masks as `index`, `palette` (as VOC writes them), `binary` or `colors`."""
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask = scene(*SIZES[number % 3], seed + number, **options)
        Image.fromarray(image).save(images / f"{number:02d}.{('png', 'webp', 'jpg')[number % 3]}", quality=95)
        save_mask(mask, masks / f"{number:02d}.png", kind)


def save_mask(mask: Pixels, path: Path, kind: str = "index") -> None:
    """Writes a mask."""
    if kind == "binary":
        mask = np.where(mask == 1, 255, 0).astype(np.uint8)
    if kind == "colors":
        table = np.array([*COLORS.values()], dtype=np.uint8)
        mask = table[np.where(mask == IGNORE, 3, mask)]
    image = Image.fromarray(mask)
    if kind == "palette":
        image = Image.fromarray(mask, "P")
        *classes, void = COLORS.values()
        image.putpalette([part for color in (*classes, *[[0, 0, 0]] * 252, void) for part in color])
    image.save(path)


def write_folder(root: Path, kind: str = "index", parts: tuple[str, ...] = ("train", "test"), count: int = 6) -> Path:
    """`<root>/<part>/images` and `masks`, and where the masks have indices `classes.txt`. Returns the root."""
    for seed, part in enumerate(parts):
        write_pairs(root / part / "images", root / part / "masks", count, kind, 100 * seed)
    if kind in ("index", "palette"):
        (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


def write_camvid(root: Path, tutorial: bool = False, counts: tuple[int, ...] = (6, 3, 3)) -> Path:
    """CamVid of small frames, unpacked as `train/images/` or as the SegNet tutorial has it. Returns the root."""
    for seed, (part, count) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        places = (part, f"{part}annot") if tutorial else (f"{part}/images", f"{part}/masks")
        images, masks = (root / "CamVid" / place for place in places)
        for folder in (images, masks):
            folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = scene(36, 48, 100 * seed + number, classes=11, void=11)
            mask[number % 30, :11] = np.arange(11)
            Image.fromarray(image).save(images / f"0001TP_{number:06d}.png")
            Image.fromarray(mask).save(masks / f"0001TP_{number:06d}.png")
    return root


def write_membrane(root: Path, count: int = 12, tiff: bool = False) -> Path:
    """A stack of slices whose top left pixel is their number: files, or the challenge's TIFFs. Returns the root."""
    folder = root / "membrane"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    slices, labels = [], []
    for number in range(count):
        image, mask = scene(64, 64, number, classes=2, void=1)
        gray = image[..., 0].copy()
        gray[0, 0] = number
        slices.append(Image.fromarray(gray))
        labels.append(Image.fromarray(mask * np.uint8(255 if tiff else 1)))
    if tiff:
        for name, pages in (("train-volume.tif", slices), ("train-labels.tif", labels)):
            pages[0].save(folder / name, save_all=True, append_images=pages[1:])
        for name in ("images", "masks"):
            (folder / name).rmdir()
        return root
    for name, pages in (("images", slices), ("masks", labels)):
        for number, page in enumerate(pages):
            page.save(folder / name / f"{number:02d}.png")
    return root


def encode_runs(mask: Pixels) -> str:
    """The runs of a mask, pixel by pixel: from 1 on, down the columns."""
    height, width = mask.shape
    runs: list[list[int]] = []
    inside = False
    for place in range(height * width):
        is_one = bool(mask[place % height, place // height])
        if is_one and not inside:
            runs.append([place + 1, 0])
        if is_one:
            runs[-1][1] += 1
        inside = is_one
    return " ".join(f"{first} {length}" for first, length in runs)


def write_ships(root: Path, count: int = 10) -> dict[str, Pixels]:
    """Images and a table in the format of Airbus; every third has none, others one or two ships. Returns the masks."""
    (root / "train_v2").mkdir(parents=True, exist_ok=True)
    masks, rows = {}, [["ImageId", "EncodedPixels"]]
    for number in range(count):
        image, mask = scene(*SIZES[number % 2], number)
        name = f"{number:03d}ab.jpg"
        Image.fromarray(image).save(root / "train_v2" / name, quality=95)
        ships = [] if number % 3 == 0 else [label for label in (1, 2) if (mask == label).any()]
        rows += [[name, encode_runs((mask == label).astype(np.uint8))] for label in ships] or [[name, ""]]
        masks[name] = np.isin(mask, ships).astype(np.uint8)
    with (root / "train_ship_segmentations_v2.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return masks


def write_all(root: Path) -> Path:
    """A root for each data set with masks. Returns the folder above."""
    write_folder(root / "SegmentationFolder")
    write_camvid(root / "CamVid")
    write_membrane(root / "Membrane")
    write_ships(root / "RunLengthMasks")
    return root


def make(kind: type[MaskDataModule], root: Path, **options: Any) -> MaskDataModule:
    """Any data set with masks of `write_all`."""
    return kind(root=str(root / kind.__name__), **options)


KINDS = (SegmentationFolder, CamVid, Membrane, RunLengthMasks)


def as_whole(batch: tuple[torch.Tensor, torch.Tensor], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The first image of a batch and its mask, without the padding."""
    return batch[0][0, :, : size[0], : size[1]], batch[1][0, : size[0], : size[1]]
