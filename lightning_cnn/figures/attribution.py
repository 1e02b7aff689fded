"""What an answer of a network rests on: maps over images, and the columns of windows of returns."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_cnn.figures.images import as_rgb, image_grid
from lightning_cnn.figures.style import BLUE, ORANGE, panel

FULL_COLOR = 0.99  # quantile of the absolute values of a map


def overlay(images: Tensor, maps: Tensor) -> Tensor:
    """Maps over their images: orange where a value is positive, blue where it is negative, on light gray.

    Each map has a scale of its own: the 99 % quantile of its absolute values, and whatever is above, has full color.

    Args:
        images: Float, 0 to 1, `(n, channels, height, width)`.
        maps: `(n, height, width)`.

    Returns:
        Float, 0 to 1, `(n, 3, height, width)`.
    """
    sizes = maps.abs()
    top = sizes.amax((1, 2))
    full = torch.from_numpy(np.quantile(sizes.flatten(1).numpy(), FULL_COLOR, axis=1)).to(top)
    strength = (sizes / torch.where(full > 0, full, top).clamp_min(1e-30)[:, None, None]).clamp(0, 1)[:, None]
    speaks, against = (torch.tensor(to_rgb(one)).view(1, 3, 1, 1) for one in (ORANGE, BLUE))
    color = torch.where(maps[:, None] > 0, speaks, against)
    gray = 0.3 + 0.7 * images.mean(1, keepdim=True)
    return gray * (1 - 0.9 * strength) + 0.9 * strength * color


def map_grid(images: Tensor, maps: Tensor, titles: Sequence[tuple[str, str]]) -> Figure:
    """Images, each with its map beside it.

    Args:
        images: Float, 0 to 1, `(n, channels, height, width)`.
        maps: `(n, height, width)`.
        titles: Of each image and of its map.
    """
    pairs = torch.stack([as_rgb(images), overlay(images, maps)], 1).flatten(0, 1)
    return image_grid(pairs, [text for pair in titles for text in pair], columns=min(6, len(pairs)), together=2)


def png(image: Tensor) -> bytes:
    """The content of a PNG file, a pixel of the file for each of the image.

    Args:
        image: Float, 0 to 1, `(channels, height, width)`.
    """
    pixels = (255 * as_rgb(image)).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def column_bars(columns: Sequence[str], values: Mapping[str, NDArray[np.float64]], unit: str) -> Figure:
    """How much each column of a window matters, as bars.

    Args:
        columns: Names of the columns.
        values: By method, `(columns,)`.
        unit: Of the values.
    """
    figure, axes = panel((max(5.2, 0.24 * len(columns)), 3.6), ylabel=f"mean absolute attribution\n({unit})")
    places, width = np.arange(len(columns)), 0.8 / len(values)
    for number, (name, color) in enumerate(zip(values, (BLUE, ORANGE), strict=False)):
        shift = (number - (len(values) - 1) / 2) * width
        axes.bar(places + shift, values[name], width, color=color, label=name.replace("_", " "))
    axes.set_xticks(places, columns, rotation=90, fontsize=7)
    axes.margins(x=0.01)
    axes.legend(frameon=False)
    return figure
