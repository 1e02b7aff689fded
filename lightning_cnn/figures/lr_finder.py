"""The figure of a learning rate range test."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_cnn.figures.style import BLUE, ORANGE, panel


def range_test(
    rates: NDArray[np.float64],
    losses: NDArray[np.float64],
    means: NDArray[np.float64],
    trials: Mapping[float, float],
    value: float,
) -> Figure:
    """Draws the sweep.

    Args:
        rates: Learning rates, `(n,)`.
        losses: The loss after each step, `(n,)`.
        means: The smoothed losses, `(n,)`.
        trials: The rates that were tried, and the loss that each has led to; infinite where it has diverged.
        value: The rate that was chosen.
    """
    figure, axes = panel(xlabel="learning rate", ylabel="training loss", title="learning rate range test")
    axes.plot(rates, losses, color=BLUE, alpha=0.3, label="loss of a step")
    axes.plot(rates, means, color=BLUE, label="smoothed")
    tried = [(rate, loss) for rate, loss in trials.items() if math.isfinite(loss)]
    axes.plot(*zip(*tried, strict=True), "o", color=ORANGE, ms=4, label="after a trial at one rate")
    axes.plot(value, trials[value], "o", color=ORANGE, ms=8, label=f"chosen, {value:.3g}")
    axes.axvline(value, color=ORANGE, linestyle="--")
    top = 1.5 * float(np.nanmax(means[: int(np.nanargmin(means)) + 1]))
    axes.set_xscale("log")
    axes.set_ylim(0, top if math.isfinite(top) else None)
    axes.legend(frameon=False)
    return figure
