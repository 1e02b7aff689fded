"""The figures of a classification: confusion matrix, the worst images, and some right and wrong ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_cnn.figures.collected import IMAGES, ORDER
from lightning_cnn.figures.images import image_grid


def class_figures(
    kept: Mapping[str, Mapping[str, Any]], class_names: Sequence[str], title: str
) -> Iterator[tuple[str, Figure]]:
    """Names and figures.

    Args:
        kept: Rows of `labels` and `predictions`, both classes: `answers`, all of them; `worst`, ordered by their loss,
            and `sample`, both with their `images`, float, 0 to 1, where these can be shown.
        class_names: Names of the classes.
        title: Of the confusion matrix.
    """
    counts = confusions(kept["answers"]["labels"], kept["answers"]["predictions"], len(class_names))
    yield "confusion", confusion_matrix(counts, class_names, f"{title}: {int(counts.sum()):,} images")
    worst, sample = kept["worst"], kept["sample"]
    if IMAGES not in worst:
        return
    titles = [
        f"{class_names[true]}, taken for\n{class_names[guess]} (loss {loss:.1f})"
        for loss, true, guess in zip(*(worst[name].tolist() for name in (ORDER, "labels", "predictions")), strict=True)
    ]
    yield "worst", image_grid(worst[IMAGES], titles)
    titles = [
        f"\u2713 {class_names[true]}" if true == guess else f"\u2717 {class_names[guess]},\nis {class_names[true]}"
        for true, guess in zip(*(sample[name].tolist() for name in ("labels", "predictions")), strict=True)
    ]
    yield "predictions", image_grid(sample[IMAGES], titles, columns=8)


def confusions(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """How often each class (row) was taken for each class (column), int64 `(classes, classes)`.

    Args:
        labels: True classes, int64 `(n,)`.
        predictions: Predicted ones, int64 `(n,)`.
        classes: Number of classes.
    """
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


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
