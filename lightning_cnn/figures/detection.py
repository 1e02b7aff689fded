"""The figures of detection: objects found in images beside the true ones, and precision over recall."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lightning_cnn.figures.images import image_grid
from lightning_cnn.figures.style import BLUE, GRAY, ORANGE, panel

LARGER = 1.5  # than other grids of images: the boxes need room for their labels
LEGEND = 12  # classes with a line of their own in the legend


def draw_detections(
    images: Tensor,
    predictions: Sequence[dict[str, Any]] | None,
    labels: Tensor,
    titles: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Images in rows with their true boxes, and those that a detector has found with class and score.

    Args:
        images: Float, 0 to 1, `(n, 1 or 3, height, width)`.
        predictions: Of each image `boxes` `(k, 4)`, `labels` `(k,)`, `scores` `(k,)`, and `chosen`, the positions of
            those that are drawn; None draws the truth alone.
        labels: `(n, max_boxes, 5)`: class, left, top, right, bottom in pixels; class -1 in rows that are not there, and
            -2 - c for a crowd of class c, which is drawn dashed.
        titles: What stands above each image; default the names of its objects, where these are single characters, else
            how many there are.
        names: Names of the classes; default their numbers.
    """
    true = [label[label[:, 0] != -1].cpu() for label in labels]
    if titles is None:
        titles = [_summary([_name(label, names) for label in rows[:, 0].tolist() if label >= 0]) for rows in true]
    figure = image_grid(images, titles)
    figure.set_size_inches(*(LARGER * figure.get_size_inches()).tolist())
    axes, width = figure.axes[0], images.shape[-1]
    for position, (rows, title) in enumerate(zip(true, list(axes.texts), strict=True)):
        # the title stands above the middle of its image
        left, top = title.get_position()[0] - width / 2 - 0.5, title.get_position()[1] + 0.03 * width - 0.5
        for label, *box in rows.tolist():
            is_crowd = label <= -2
            _box(axes, left, top, box, BLUE, 2.2, "dashed" if is_crowd else "solid")
            if predictions is None:
                name = _name(-2 - label if is_crowd else label, names)
                _write(axes, left + box[0], top + box[1], f"{name} crowd" if is_crowd else name, BLUE)
        if predictions is not None:
            found = predictions[position]
            for place in found["chosen"].tolist():
                box = found["boxes"][place].tolist()
                _box(axes, left, top, box, ORANGE, 1.0)
                score = f"{float(found['scores'][place]):.2f}".replace("0.", ".")
                text = f"{_name(found['labels'][place], names)} {score}"
                _write(axes, left + box[0], top + box[1], text, ORANGE)
    return figure


def precision_curves(precision: Tensor, names: Sequence[str], title: str) -> Figure:
    """Precision over recall at an IoU of 0.5: of each class, and the mean over them.

    Args:
        precision: `(101, classes)`, at recalls of 0, 0.01 to 1.
        names: Names of the classes.
        title: What was measured.
    """
    figure, axes = panel(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"{title}: IoU 0.5", fontsize=9)
    recall, values = np.linspace(0, 1, len(precision)), precision.cpu().numpy()
    several = len(names) > 1
    for place, name in enumerate(names):
        label = f"{name}: AP {values[:, place].mean():.3f}" if len(names) <= LEGEND else None
        color = GRAY if len(names) > LEGEND else f"C{place}" if several else BLUE
        axes.plot(recall, values[:, place], lw=1, label=label, color=color)
    if several:
        axes.plot(recall, values.mean(1), color="black", lw=2, label=f"mean: AP {values.mean():.3f}")
    axes.legend(frameon=False, fontsize=7, loc="lower left", ncols=2 if several else 1)
    return figure


def _summary(names: Sequence[str]) -> str:
    if names and all(len(name) == 1 for name in names):
        return "".join(names)
    return f"{len(names)} object{'s' * (len(names) != 1)}"


def _name(label: Any, names: Sequence[str] | None) -> str:
    return str(int(label)) if names is None else names[int(label)]


def _box(axes: Axes, left: float, top: float, box: list[float], color: str, width: float, line: str = "solid") -> None:
    corner, sides = (left + box[0], top + box[1]), (box[2] - box[0], box[3] - box[1])
    axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=color, linewidth=width, linestyle=line))


def _write(axes: Axes, left: float, top: float, text: str, color: str) -> None:
    # inside the box, so that it stays within the image
    room = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.3}
    axes.text(left, top, text, color=color, fontsize=5.5, va="top", ha="left", bbox=room)
