"""The figures of a sweep: how its best value came about, and which settings mattered."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_cnn.figures.style import BLUE, ORANGE, panel

Points = Sequence[tuple[int, float]]  # number and value of trials


def history(finished: Points, pruned: Points, metric: str, falls: bool, title: str) -> Figure:
    """The value of each trial in their order, and the best so far.

    Args:
        finished: Trials with a result, in order.
        pruned: Trials that ended early.
        metric: What the value is.
        falls: Whether less is better.
        title: The title.
    """
    figure, axes = panel((7, 4), xlabel="trial", ylabel=metric, title=title)
    numbers, values = np.array(finished, dtype=float).reshape(-1, 2).T
    axes.plot(numbers, values, "o", color=BLUE, label="finished")
    best = (np.minimum if falls else np.maximum).accumulate(values)
    axes.step(numbers, best, where="post", color=ORANGE, label="best so far")
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "x", color="grey", label="pruned, at its end")
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def importance(shares: Mapping[str, float], metric: str, title: str) -> Figure:
    """How much each setting had to do with the value.

    Args:
        shares: Importance of each setting; they sum to 1.
        metric: What the value is.
        title: The title.
    """
    names = sorted(shares, key=lambda name: shares[name])
    size = (7, 1.2 + 0.45 * len(names))
    figure, axes = panel(size, xlim=(0, 1.1), xlabel=f"importance for {metric}", title=title)
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.grid(False, axis="y")
    return figure
