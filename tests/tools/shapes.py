"""Rendered scenes with masks: bright discs and dark squares on noise, of three classes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_cnn.datamodules import MaskDataModule
from lightning_cnn.options import IGNORE

NAMES = ("background", "disc", "square")


def scene(height: int, width: int, seed: int, count: int = 3, channels: int = 1) -> tuple[Tensor, Tensor]:
    """An image, uint8 `(channels, height, width)`, and its mask, uint8 `(height, width)`; where two overlap is void."""
    random = np.random.default_rng(seed)
    image, mask = random.normal(110, 12, (height, width)), np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for number in range(count):
        label, radius = 1 + number % 2, random.uniform(5, 10)
        row, column = random.uniform(0, height), random.uniform(0, width)
        distances = abs(rows - row), abs(columns - column)
        inside = (np.hypot(*distances) if label == 1 else np.maximum(*distances)) < radius
        image[inside] += 60 if label == 1 else -60
        mask[inside] = np.where(mask[inside] > 0, IGNORE, label)
    pixels = torch.from_numpy(image.clip(0, 255).astype(np.uint8)).expand(channels, -1, -1).contiguous()
    return pixels, torch.from_numpy(mask)


def write_scenes(root: Path, train: int = 8, test: int = 3) -> Path:
    """Writes `<root>/<part>/images` and `masks` with color scenes, and `classes.txt`. Returns the root."""
    for part, count, first in (("train", train, 0), ("test", test, 1000)):
        for folder in ("images", "masks"):
            (root / part / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = scene(64, 64 + 6 * (number % 2), first + number, channels=3)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / part / "images" / f"{number:02d}.png")
            Image.fromarray(mask.numpy()).save(root / part / "masks" / f"{number:02d}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


class Shapes(MaskDataModule):
    """Scenes of 64x64 pixels, for validation and test of other sizes, too."""

    num_classes, in_channels, native_size, class_names = 3, 1, 64, NAMES

    def load(self, train: bool) -> Any:
        sides = [(64, 64)] * 40 + [(70, 90)] * 8 if train else [(64, 64)] * 8 + [(90, 50)] * 4
        scenes = [scene(*size, seed=seed + (not train) * 1000) for seed, size in enumerate(sides)]
        return [image for image, _ in scenes], [mask for _, mask in scenes]
