"""Filters, activation maps, and the images that filters look for."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.figures.images import image_grid
from lightning_cnn.figures.style import BLUE, GRAY, ORANGE, finish

COLUMNS = 8
COLORS = (1, 3)  # channels of which a filter is drawn as one image
SIDE = 32  # least side of a drawn filter in pixels
SHADE = 0.4  # from gray to the largest weight, so that it stands out against the page
CONTRAST = 25.0  # standard deviation of the pixels of an image that a filter looks for


def drawable(weights: Tensor) -> int:
    """How many filters of a layer `filter_grid` draws at most."""
    return len(weights) if weights.ndim == 3 or weights.shape[1] in COLORS else min(COLUMNS, len(weights))


def filter_grid(weights: Tensor) -> Figure:
    """The weights of filters: gray is 0, the lightest and the darkest shade the largest absolute weight of all.

    Args:
        weights: `(filters, channels, height, width)`. One channel is drawn in gray, three in color; of more, the first
            eight channels are drawn in a row for each of the first eight filters. `(filters, channels, length)` is
            drawn as lines.
    """
    if weights.ndim == 3:
        return _lines(weights)
    titles = [str(number) for number in range(len(weights))]
    if weights.shape[1] not in COLORS:
        weights = weights[: drawable(weights), :COLUMNS]
        columns = weights.shape[1]
        titles = [f"{number}, channel {channel}" for number in range(len(weights)) for channel in range(columns)]
        weights = weights.flatten(0, 1)[:, None]
    else:
        columns = min(COLUMNS, len(weights))
    images = 0.5 + SHADE * weights / weights.abs().max().clamp_min(1e-12)
    images = F.interpolate(images, scale_factor=math.ceil(SIDE / weights.shape[-1]))  # room for the titles
    return image_grid(images, titles, columns)


def map_grid(maps: Mapping[str, Tensor], columns: int) -> Figure:
    """Activation maps: of each layer black is its least activation, and white its largest.

    Args:
        maps: `(filters, height, width)` by the name of the layer.
        columns: Maps in a row.
    """
    size = [max(each.shape[side] for each in maps.values()) for side in (1, 2)]
    images, titles = [], []
    for name, each in maps.items():
        low, high = each.min(), each.max()
        shares = (each - low) / (high - low).clamp_min(1e-12)
        images += [*F.interpolate(shares[:, None], size)]
        titles += [f"{name}: {number}" for number in range(len(each))] if len(each) > 1 else [name]
    return image_grid(torch.stack(images), titles, min(columns, len(images)))


def wanted_grid(images: Tensor, numbers: Sequence[int], activations: Sequence[float]) -> Figure:
    """Images that filters look for, each with the same contrast, under the filter and its mean activation.

    Args:
        images: `(n, 1 or 3, height, width)`; the mean of each becomes gray.
        numbers: The filter of each image.
        activations: Its mean activation.
    """
    centered = images - images.mean((1, 2, 3), keepdim=True)
    deviation = centered.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    titles = [f"{number}: {value:.3g}" for number, value in zip(numbers, activations, strict=True)]
    return image_grid((128 + CONTRAST * centered / deviation) / 255, titles, min(COLUMNS, len(images)))


def _lines(weights: Tensor) -> Figure:
    """A panel for each filter, a line for each channel."""
    columns = min(COLUMNS, len(weights))
    rows = math.ceil(len(weights) / columns)
    figure = Figure(figsize=(1.7 * columns, 1.5 * rows), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    colors = (BLUE, ORANGE, GRAY)
    for number, axes in enumerate(panels):
        if number >= len(weights):
            axes.set_axis_off()
            continue
        for channel, values in enumerate(weights[number].tolist()):
            axes.plot(values, color=colors[channel % len(colors)], marker="o", ms=2, lw=1)
        axes.set_title(str(number), fontsize=8)
        axes.tick_params(labelsize=7)
        finish(axes)
    return figure
