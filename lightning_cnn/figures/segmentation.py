"""The figures of segmentation: masks over their images."""

from collections.abc import Sequence

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.figures.images import as_rgb, image_grid
from lightning_cnn.figures.style import GRAY
from lightning_cnn.options import BACKGROUND, IGNORE

OPACITY = 0.55
SIDE = 256  # of the images in grids of whole images, in pixels


def class_colors(names: Sequence[str]) -> Tensor:
    """Colors of classes, those of matplotlib's `tab10`, `tab20` and `hsv`, float 0 to 1, `(classes, 3)`.

    Args:
        names: Names of the classes.
    """
    count = len(names)
    chosen = colormaps["tab10" if count <= 10 else "tab20" if count <= 20 else "hsv"]
    places = range(count) if count <= 20 else [number / count for number in range(count)]
    return torch.tensor([chosen(place)[:3] for place in places])


def overlay(image: Tensor, mask: Tensor, names: Sequence[str]) -> Tensor:
    """An image with its mask over it; the class `background` stays clear, ignored pixels are gray.

    Args:
        image: Float, 0 to 1, `(1 or 3, height, width)`.
        mask: Integers, `(height, width)`: classes, and `IGNORE`.
        names: Names of the classes.

    Returns:
        Float, 0 to 1, `(3, height, width)`.
    """
    colors = torch.cat([class_colors(names), torch.full((1, 3), 0.5)]).to(image)
    opacity = torch.tensor([0.0 if name == BACKGROUND else OPACITY for name in names] + [OPACITY]).to(image)
    classes = torch.where(mask == IGNORE, len(names), mask.long())
    over, color = opacity[classes], colors[classes].permute(2, 0, 1)
    return image * (1 - over) + color * over


def masked_grid(
    pairs: Sequence[tuple[Tensor, Tensor]], names: Sequence[str], captions: Sequence[str] | None = None
) -> Figure:
    """Images, each beside the same image under its mask, above a legend of the classes.

    Args:
        pairs: Images as float 0 to 1, `(channels, height, width)`, and their masks, `(height, width)`.
        names: Names of the classes.
        captions: What stands above each image; default nothing. Above a mask stand the two largest classes.
    """
    panels, titles = [], []
    side = min(SIDE, max(max(image.shape[-2:]) for image, _ in pairs))
    for number, (image, mask) in enumerate(pairs):
        small, classes = fitted(as_rgb(image), mask, side)
        inside = classes >= 0
        for panel in (small, overlay(small, classes.clamp_min(0), names)):
            panels.append(torch.where(inside, panel, 1.0))
        titles += ["" if captions is None else captions[number], largest(mask, names)]
    columns = 4 if captions else 6
    figure = image_grid(torch.stack(panels).cpu(), titles, min(columns, len(panels)), together=2)
    add_legend(figure, names)
    return figure


def compared(
    images: Sequence[Tensor] | Tensor,
    masks: Sequence[Tensor] | Tensor,
    predictions: Sequence[Tensor] | Tensor,
    captions: Sequence[str],
    names: Sequence[str],
) -> Figure:
    """Images, each beside itself under its mask and under the predicted one, above a legend of the classes.

    Args:
        images: Float, 0 to 1, each `(channels, height, width)`.
        masks: Classes and `IGNORE`, each `(height, width)`.
        predictions: Classes, each `(height, width)`.
        captions: What stands above each image.
        names: Names of the classes.
    """
    side = min(SIDE, max(max(image.shape[-2:]) for image in images))
    panels = []
    for image, *both in zip(images, masks, predictions, strict=True):
        small, inside = fitted(as_rgb(image), both[0], side)
        over = [overlay(small, fitted(image, mask, side)[1].clamp_min(0), names) for mask in both]
        panels += [torch.where(inside >= 0, panel, 1.0) for panel in (small, *over)]
    titles = [title for caption in captions for title in (caption, "true", "predicted")]
    figure = image_grid(torch.stack(panels).cpu(), titles, min(6, len(panels)), together=3)
    add_legend(figure, names)
    return figure


def fitted(image: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """An image and its mask in the middle of a square.

    Args:
        image: Float, `(channels, height, width)`.
        mask: Integers, `(height, width)`.
        side: Side of the square in pixels.

    Returns:
        Float `(channels, side, side)`, and int64 `(side, side)`, -1 outside of the image.
    """
    scale = side / max(image.shape[-2:])
    size = [max(1, round(length * scale)) for length in image.shape[-2:]]
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    classes = F.interpolate(mask[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    above, left = ((side - length) // 2 for length in size)
    border = (left, side - size[1] - left, above, side - size[0] - above)
    return F.pad(small, border), F.pad(classes, border, value=-1)


def largest(mask: Tensor, names: Sequence[str]) -> str:
    """The two largest classes of a mask in words, one in a line.

    Args:
        mask: Integers, `(height, width)`.
        names: Names of the classes.
    """
    counted = mask[mask != IGNORE].long().flatten()
    shares = torch.bincount(counted, minlength=len(names)) / max(len(counted), 1)
    found = sorted(zip(shares.tolist(), names, strict=True), key=lambda pair: -pair[0])[:2]
    return "\n".join(f"{name} {100 * share:.1f} %" for share, name in found if share > 0) or "ignored"


def add_legend(figure: Figure, names: Sequence[str]) -> None:
    """Adds a legend of the classes below a figure, at most 24 of them."""
    colors = class_colors(names).tolist()
    shown = [(name, color) for name, color in zip(names, colors, strict=True) if name != BACKGROUND][:24]
    patches = [*(Patch(color=color, label=name) for name, color in shown), Patch(color=GRAY, label="ignored")]
    columns = 6
    width, height = figure.get_size_inches()
    more = 0.25 * -(-len(patches) // columns) + 0.15
    figure.set_size_inches(width, height + more)
    for axes in figure.axes:
        axes.set_position((0.0, more / (height + more), 1.0, height / (height + more)))
    figure.legend(handles=patches, loc="lower center", ncols=columns, frameon=False, fontsize=8)
