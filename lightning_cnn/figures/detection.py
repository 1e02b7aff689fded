"""The figures of detection: digits found in photos, beside the true ones."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lightning_cnn.figures.images import answer, image_grid
from lightning_cnn.figures.style import BLUE, ORANGE

LARGER = 1.5  # than other grids of images: the boxes need room for their digits


def draw_detections(images: Tensor, predictions: Sequence[dict[str, Any]] | None, labels: Tensor) -> Figure:
    """Images in rows with their true boxes, and those that a detector has found with digit and score.

    Args:
        images: Float, 0 to 1, `(n, 3, height, width)`.
        predictions: Of each image `boxes` `(k, 4)`, `labels` `(k,)`, `scores` `(k,)`, the `number` that they make, its
            `probability`, and `chosen`, the positions of its digits, which alone are drawn; None draws the truth alone.
        labels: `(n, max_boxes, 5)`: digit, left, top, right, bottom in pixels; digit -1 in rows that are not there.
    """
    true = [label[label[:, 0] >= 0].cpu() for label in labels]
    numbers = ["".join(str(int(digit)) for digit in rows[:, 0]) for rows in true]
    titles = numbers
    if predictions is not None:
        read, right = ([text or "nothing" for text in texts] for texts in ((p["number"] for p in predictions), numbers))
        shown = (f"{text} ({p['probability']:.0%})" for text, p in zip(read, predictions, strict=True))
        titles = [*map(answer, read, right, shown)]
    figure = image_grid(images, titles)
    figure.set_size_inches(*(LARGER * figure.get_size_inches()).tolist())
    axes, width = figure.axes[0], images.shape[-1]
    for position, (rows, title) in enumerate(zip(true, list(axes.texts), strict=True)):
        # the title stands above the middle of its image
        left, top = title.get_position()[0] - width / 2 - 0.5, title.get_position()[1] + 0.03 * width - 0.5
        for digit, *box in rows.tolist():
            _box(axes, left, top, box, BLUE, 2.2)
            if predictions is None:
                _write(axes, left + box[0], top + box[1], f"{digit:.0f}", BLUE)
        if predictions is not None:
            found = predictions[position]
            for place in found["chosen"].tolist():
                box = found["boxes"][place].tolist()
                _box(axes, left, top, box, ORANGE, 1.0)
                text = f"{int(found['labels'][place])} {float(found['scores'][place]):.2f}".replace("0.", ".")
                _write(axes, left + box[0], top + box[1], text, ORANGE)
    return figure


def _box(axes: Axes, left: float, top: float, box: list[float], color: str, width: float) -> None:
    sides = box[2] - box[0], box[3] - box[1]
    axes.add_patch(Rectangle((left + box[0], top + box[1]), *sides, fill=False, edgecolor=color, linewidth=width))


def _write(axes: Axes, left: float, top: float, text: str, color: str) -> None:
    # inside the box, so that it stays within the image
    room = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.3}
    axes.text(left, top, text, color=color, fontsize=5.5, va="top", ha="left", bbox=room)
