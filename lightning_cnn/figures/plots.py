"""The pictures: plain matplotlib figures, drawn without a display."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter
from torch import Tensor

from lightning_cnn.evaluation.coverage import coverage, coverage_curve
from lightning_cnn.resume.files import make_folder, replacing

BLUE, ORANGE = "#3366aa", "#dd7722"
DPI = 110  # pixels an inch


def image_grid(images: Tensor, titles: Sequence[str], columns: int = 5, together: int = 1) -> Figure:
    """Images in rows, each under its title.

    Args:
        images: Float, 0 to 1, `(n, 1 or 3, height, width)`.
        titles: One for each image, of one or two lines.
        columns: Images in a row.
        together: So many neighbors in a row belong together; between them and the next there is more room.
    """
    rows = math.ceil(len(images) / columns)
    height, width = images.shape[-2:]
    above, gap = math.ceil(0.26 * width), math.ceil(0.08 * width)  # room for a title, and between two images
    # one picture of all images: an axes for each would take a second to draw
    lefts = [column * (width + gap) + column // together * (together > 1) * 4 * gap for column in range(columns)]
    canvas = np.full((rows * (height + above), lefts[-1] + width, 3), 255, dtype=np.uint8)
    pixels = (255 * images.cpu()).round().clamp(0, 255).byte()
    figure = Figure(figsize=(1.7 * columns, 1.7 * columns * canvas.shape[0] / canvas.shape[1]))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    for number, (image, title) in enumerate(zip(pixels, titles, strict=True)):
        row, column = divmod(number, columns)
        top, left = row * (height + above) + above, lefts[column]
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0).numpy()
        axes.text(left + width / 2, top - 0.03 * width, title, ha="center", va="bottom", fontsize=8, linespacing=1.1)
    axes.imshow(canvas, interpolation="nearest")
    return figure


def confusion_matrix(counts: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """How often each class (row) was taken for each class (column), shaded by the share of the row.

    The row of a class that does not occur is gray.

    Args:
        counts: `(classes, classes)`, rows are the truth.
        class_names: Names of the classes.
        title: The title.
    """
    n = len(class_names)
    size = min(14.0, max(4.5, 1.5 + 0.45 * n))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = (counts / counts.sum(1, keepdim=True)).cpu().numpy()  # NaN, not drawn, where a class does not occur
    axes.set_facecolor("#dddddd")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 30:
        for row in range(n):
            for column in range(n):
                if count := int(counts[row, column]):
                    color = "white" if shares[row, column] > 0.5 else "black"
                    inside = axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=7)
                    inside.set_in_layout(False)  # needs no room of its own, and there may be 900
        axes.set_xticks(range(n), class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
        axes.set_yticks(range(n), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    return figure


def curves(history: dict[str, list[tuple[float, float]]]) -> Figure:
    """Training and validation curves, one panel for each metric.

    Args:
        history: Points (epoch, value) of metrics such as `train/loss` and `val/loss`.
    """
    names = sorted({name.split("/", 1)[1] for name in history}, key=lambda name: (name != "loss", name))
    figure = Figure(figsize=(5.2 * max(1, len(names)), 3.6), layout="constrained")
    for name, axes in zip(names, np.ravel(figure.subplots(1, max(1, len(names)), squeeze=False)), strict=False):
        for stage, color in (("train", BLUE), ("val", ORANGE)):
            if points := history.get(f"{stage}/{name}"):
                marker = "o" if len(points) < 30 else None
                axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=3, label=stage)
        _finish(axes, name)
    return figure


def coverage_plot(right: Tensor, sure: Tensor, wanted: float, title: str) -> Figure:
    """How accurate the surest answers are, by the share of all answers that is taken.

    Args:
        right: Which answers are right, bool `(n,)`.
        sure: How probable each is, `(n,)`.
        wanted: The accuracy that a dashed line marks.
        title: The title.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    shares, accuracies = coverage_curve(right, sure)
    axes.plot(shares.cpu().numpy(), accuracies.cpu().numpy(), color=BLUE)
    axes.axhline(wanted, color=ORANGE, linestyle="--")
    reached = float(coverage(right, sure, wanted))
    axes.text(0.0, wanted, f" {wanted:.0%} right: coverage {reached:.1%}", va="bottom", color=ORANGE)
    axes.set(xlabel="share of the numbers, the surest first", ylabel="accuracy", title=title, xlim=(0, 1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: Path, hint: str = "") -> None:
    """Writes a figure in one step, mostly as PNG.

    Args:
        figure: The figure.
        path: The file. Its suffix names the format. Its folder is made, but not the folders above.
        hint: What the user can do where it can't be written.

    Raises:
        StorageError: If it can't be written.
        ValueError: If matplotlib does not know the suffix.
    """
    make_folder(path.parent, hint, parents=False)
    figure.set_dpi(DPI)
    for text in _named(figure):
        text.set_parse_math(False)  # a class may have dollar signs in its name
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)  # `savefig` would begin with a trial drawing of everything
    content = io.BytesIO()
    kind = path.suffix.removeprefix(".") or "png"
    # half the time of level 6, and a tenth more bytes
    figure.savefig(content, dpi=DPI, format=kind, pil_kwargs={"compress_level": 3})
    with replacing(path, hint, lambda: len(content.getvalue())) as file:
        file.write(content.getbuffer())


def _named(figure: Figure) -> set[Text]:
    """All texts of a figure but the powers of ten on its logarithmic axes, which are formulas."""
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    logarithmic = [axis for axis in axes if isinstance(axis.get_major_formatter(), LogFormatter)]
    powers = {text for axis in logarithmic for text in axis.findobj(Text) if text is not axis.label}
    return set(figure.findobj(Text)) - powers  # type: ignore[arg-type]


def _finish(axes: Axes, name: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
