"""The figures of returns: windows, pictures of indicators, and what was predicted of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from lightning_cnn.figures.style import BLUE, ORANGE, panel

COLUMNS = 4  # windows in a row
WIDE = (6.4, 4.0)  # inches
Floats = NDArray[np.float64]


def calibration_figure(said: Floats, seen: Floats, count: Floats, base_rate: float, error: float, title: str) -> Figure:
    """How often returns are positive, by their predicted probability, in groups of equal size.

    Args:
        said: Mean probability of each group, `(groups,)`.
        seen: Share of positive returns in it, `(groups,)`.
        count: Size of it, `(groups,)`.
        base_rate: Share of all returns that are positive.
        error: The calibration error.
        title: The title; the calibration error follows it.
    """
    margin = 2 * np.sqrt(seen * (1 - seen) / count)
    title = f"{title}, ECE {error:.4f}"
    figure, axes = panel(
        WIDE, xlabel="predicted probability of a positive return", ylabel="share of positive returns", title=title
    )
    low, high = min(said.min(), (seen - margin).min()), max(said.max(), (seen + margin).max())
    axes.plot([low, high], [low, high], color="grey", linewidth=1, linestyle="--", label="calibrated")
    axes.axhline(base_rate, color=ORANGE, linewidth=1, label=f"up-rate {base_rate:.1%}")
    axes.errorbar(said, seen, margin, color=BLUE, marker="o", ms=4, label="groups of equal size, ± 2 s.e.")
    axes.legend(frameon=False, fontsize=8)
    return figure


def ic_figure(months: NDArray[np.int64], ics: Floats, title: str) -> Figure:
    """The information coefficient of each month, and its mean up to then.

    Args:
        months: Months since 1970-01, in order, `(n,)`.
        ics: `(n,)`.
        title: The title.
    """
    figure, axes = panel(WIDE, xlabel="month of the return", ylabel="rank correlation (IC)", title=title)
    dates = months.astype("datetime64[M]").astype("datetime64[D]")
    axes.bar(dates, ics, width=24, color=np.where(ics > 0, BLUE, "#bbbbbb"), label="IC of the month")
    axes.plot(
        dates, np.cumsum(ics) / np.arange(1, len(ics) + 1), color=ORANGE, marker=".", label="mean up to the month"
    )
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.legend(frameon=False, fontsize=8)
    axes.tick_params(axis="x", rotation=30)
    return figure


def decile_figure(deciles: NDArray[np.int64], outcomes: Floats, months: NDArray[np.int64], title: str) -> Figure:
    """The mean return of each decile of the predictions: of each month, then over the months.

    Args:
        deciles: Of the predictions within their month, 0 to 9, `(n,)`.
        outcomes: Returns, `(n,)`.
        months: Of the outcomes, `(n,)`.
        title: The title.
    """
    values, rows = np.unique(months, return_inverse=True)
    sums, counts = np.zeros((len(values), 10)), np.zeros((len(values), 10))
    np.add.at(sums, (rows, deciles), outcomes)
    np.add.at(counts, (rows, deciles), 1)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    there = np.flatnonzero((counts > 0).any(0))
    figure, axes = panel(
        WIDE,
        xlabel="decile of the prediction within its month (10: highest)",
        ylabel="mean return of the month",
        title=title,
    )
    height = np.nanmean(means[:, there], axis=0)
    error = None
    if len(values) > 1:
        error = 2 * np.nanstd(means[:, there], axis=0) / np.sqrt((counts[:, there] > 0).sum(0))
    axes.bar(there + 1, height, yerr=error, color=BLUE, ecolor="grey", capsize=2)
    axes.axhline(outcomes.mean(), color=ORANGE, linewidth=1, label=f"mean of all {outcomes.mean():.2%}")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xticks(range(1, 11))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes.legend(frameon=False, fontsize=8)
    return figure


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
            axes.axvline(0, color="grey", lw=0.6)
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
