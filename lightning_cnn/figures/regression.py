"""Predicted against true numbers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_cnn.figures.style import BLUE, GRAY, SMALL, finish

MOST = 5000  # points of a panel
BINS = 40


def scatter(predictions: NDArray[np.float32], labels: NDArray[np.float32], names: Sequence[str], title: str) -> Figure:
    """Each prediction over its true value, a panel for each number; the line is where both are equal.

    Args:
        predictions: `(targets, n)`.
        labels: `(targets, n)`.
        names: Of the numbers.
        title: What was measured.
    """
    figure, panels = _panels(names, title)
    for axes, said, true, name in zip(panels, predictions, labels, names, strict=True):
        shown = _chosen(len(true))
        both = np.concatenate([said[shown], true[shown]])
        axes.axline((float(both.mean()), float(both.mean())), slope=1, color=GRAY, linewidth=1)
        axes.scatter(true[shown], said[shown], s=6, alpha=0.4, color=BLUE, linewidths=0)
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    return figure


def residuals(
    predictions: NDArray[np.float32], labels: NDArray[np.float32], names: Sequence[str], title: str
) -> Figure:
    """How many predictions are off by how much, a panel for each number.

    Args:
        predictions: `(targets, n)`.
        labels: `(targets, n)`.
        names: Of the numbers.
        title: What was measured.
    """
    figure, panels = _panels(names, title)
    for axes, said, true, name in zip(panels, predictions, labels, names, strict=True):
        axes.hist(said - true, bins=BINS, color=BLUE)
        axes.axvline(0, color=GRAY, linewidth=1)
        axes.set(xlabel=f"predicted - true {name}", ylabel="images")
    return figure


def _panels(names: Sequence[str], title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(SMALL[0] * len(names), SMALL[1]), layout="constrained")
    panels: list[Axes] = [*np.ravel(figure.subplots(1, len(names), squeeze=False))]
    for axes in panels:
        finish(axes)
    figure.suptitle(title, fontsize=11)
    return figure, panels


def _chosen(count: int) -> NDArray[np.int64]:
    """Positions of the points that are drawn, evenly spread."""
    return np.linspace(0, count - 1, min(count, MOST)).round().astype(np.int64)
