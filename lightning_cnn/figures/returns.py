"""The figures of windows of returns, and of pictures of indicators."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lightning_cnn.figures.style import BLUE, GRAY, ORANGE

COLUMNS = 4  # windows in a row


def window_grid(windows: Tensor, titles: Sequence[str], lags: int) -> Figure:
    """Windows as bars, the oldest month to the left; the month dummies behind a line, to the right.

    Args:
        windows: As the network sees them, `(n, channels, length)`; of several channels the first is bars, the others
            are lines.
        titles: One for each.
        lags: How many columns are lags; the others are month dummies.
    """
    figure, panels = _panels(len(windows), 2.6, 1.7)
    low, high = float(windows.min()), float(windows.max())
    room = 0.05 * (high - low)
    for window, title, axes in zip(windows.numpy(), titles, panels, strict=True):
        axes.bar(np.arange(-lags, 0), window[0, :lags][::-1], color=BLUE, width=0.8)
        for channel in window[1:]:
            axes.plot(np.arange(-lags, 0), channel[:lags][::-1], lw=0.8)
        if window.shape[1] > lags:
            axes.bar(np.arange(window.shape[1] - lags) + 1, window[0, lags:], color=ORANGE, width=0.8)
            axes.axvline(0, color=GRAY, lw=0.6)
        axes.set_ylim(low - room, high + room)
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    dummies = ", month dummies to the right" if windows.shape[2] > lags else ""
    figure.supxlabel(f"months before the outcome{dummies}", fontsize=8)
    return figure


def picture_grid(windows: Tensor, titles: Sequence[str], lags: int) -> Figure:
    """Pictures of indicators (rows) by periods (columns).

    Args:
        windows: As the network sees them, `(n, 1, side, side)`.
        titles: One for each.
        lags: Not used.
    """
    figure, panels = _panels(len(windows), 2.0, 2.1)
    for window, title, axes in zip(windows.numpy(), titles, panels, strict=True):
        axes.imshow(window[0], cmap="RdBu", vmin=-3, vmax=3)
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    return figure


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(width * COLUMNS, height * rows), layout="constrained")
    panels = list(np.ravel(figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True)))
    for empty in panels[count:]:
        empty.set_axis_off()
    return figure, panels[:count]
