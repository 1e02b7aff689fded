"""Grids of images, and learning curves."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lightning_cnn.figures.style import BLUE, GRAY, ORANGE, finish, shortened

LINE = 24  # characters of a title that fit above an image


def as_rgb(images: Tensor) -> Tensor:
    """Images as they are shown: of more than three channels the first three, of two their mean.

    Args:
        images: `(..., channels, height, width)`.

    Returns:
        `(..., 3, height, width)`.
    """
    shown = images[..., :3, :, :] if images.shape[-3] > 2 else images.mean(-3, keepdim=True)
    return shown.expand(*images.shape[:-3], 3, -1, -1)


def image_grid(images: Tensor, titles: Sequence[str], columns: int = 5, together: int = 1) -> Figure:
    """Images in rows, each under its title.

    Args:
        images: Float, 0 to 1, `(n, channels, height, width)`.
        titles: One for each image, of one or two lines; of longer lines the middle is left out.
        columns: Images in a row.
        together: So many neighbors in a row belong together; between them and the next there is more room.
    """
    rows = math.ceil(len(images) / columns)
    height, width = images.shape[-2:]
    above, gap = math.ceil(0.26 * width), math.ceil(0.08 * width)  # room for a title, and between two images
    # one picture of all images: an axes for each would take a second to draw
    lefts = [column * (width + gap) + column // together * (together > 1) * 4 * gap for column in range(columns)]
    canvas = np.full((rows * (height + above), lefts[-1] + width, 3), 255, dtype=np.uint8)
    pixels = (255 * as_rgb(images).cpu()).round().clamp(0, 255).byte()
    figure = Figure(figsize=(1.7 * columns, 1.7 * columns * canvas.shape[0] / canvas.shape[1]))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    for number, (image, title) in enumerate(zip(pixels, titles, strict=True)):
        row, column = divmod(number, columns)
        title = "\n".join(shortened(line, LINE) for line in title.split("\n"))
        top, left = row * (height + above) + above, lefts[column]
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0).numpy()
        axes.text(left + width / 2, top - 0.03 * width, title, ha="center", va="bottom", fontsize=8, linespacing=1.1)
    axes.imshow(canvas, interpolation="nearest")
    return figure


def answer(said: str, true: str, shown: str = "") -> str:
    """The title of an image: what is said of it, and where that is wrong, what is true.

    Args:
        said: The answer.
        true: The right answer.
        shown: How the answer is written, if not as it is.
    """
    return (shown or said) + ("" if said == true else f",\nis {true}")


def curves(history: dict[str, list[tuple[float, float]]], best: int | None = None) -> Figure:
    """Training and validation curves, one panel for each metric.

    Args:
        history: Points (epoch, value) of metrics such as `train/loss` and `val/loss`.
        best: The epoch of the best checkpoint, which is marked; None where there is none.
    """
    names = sorted({name.split("/", 1)[1] for name in history}, key=lambda name: (name != "loss", name))
    figure = Figure(figsize=(5.2 * max(1, len(names)), 3.6), layout="constrained")
    for name, axes in zip(names, np.ravel(figure.subplots(1, max(1, len(names)), squeeze=False)), strict=False):
        for stage, color in (("train", BLUE), ("val", ORANGE)):
            if points := history.get(f"{stage}/{name}"):
                marker = "o" if len(points) < 30 else None
                axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=3, label=stage)
        if best is not None:
            axes.axvline(best, color=GRAY, linestyle=":", label="best epoch")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if len({epoch for points in history.values() for epoch, _ in points}) < 2:
            axes.set_xlim(min(axes.get_xlim()) - 0.5, max(axes.get_xlim()) + 0.5)
        finish(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    return figure
