"""The pictures of predicted returns: plain matplotlib figures, drawn without a display."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_cnn.evaluation.confidence import calibration_error, calibration_groups
from lightning_cnn.figures.plots import BLUE, ORANGE

Floats = NDArray[np.float64]


def calibration_plot(probabilities: Floats, up: NDArray[np.bool_], title: str) -> Figure:
    """How often returns are positive, by their predicted probability, in groups of equal size.

    Args:
        probabilities: `(n,)`.
        up: Which returns are positive, `(n,)`.
        title: The title; the calibration error follows it.
    """
    said, seen, count = calibration_groups(probabilities, up)
    error = 2 * np.sqrt(seen * (1 - seen) / count)
    title = f"{title}, ECE {calibration_error(torch.from_numpy(probabilities), torch.from_numpy(up)):.4f}"
    figure, axes = _axes(title, "predicted probability of a positive return", "share of positive returns")
    low, high = min(said.min(), (seen - error).min()), max(said.max(), (seen + error).max())
    axes.plot([low, high], [low, high], color="grey", linewidth=1, linestyle="--", label="calibrated")
    axes.axhline(up.mean(), color=ORANGE, linewidth=1, label=f"up-rate {up.mean():.1%}")
    axes.errorbar(said, seen, error, color=BLUE, marker="o", ms=4, label="groups of equal size, ± 2 s.e.")
    axes.legend(frameon=False, fontsize=8)
    return figure


def ic_plot(months: NDArray[np.int64], ics: Floats, title: str) -> Figure:
    """The information coefficient of each month, and its mean up to then.

    Args:
        months: Months since 1970-01, in order, `(n,)`.
        ics: `(n,)`.
        title: The title.
    """
    figure, axes = _axes(title, "month of the return", "rank correlation (IC)")
    dates = months.astype("datetime64[M]").astype("datetime64[D]")
    axes.bar(dates, ics, width=24, color=np.where(ics > 0, BLUE, "#bbbbbb"), label="IC of the month")
    axes.plot(
        dates, np.cumsum(ics) / np.arange(1, len(ics) + 1), color=ORANGE, marker=".", label="mean up to the month"
    )
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.legend(frameon=False, fontsize=8)
    axes.tick_params(axis="x", rotation=30)
    return figure


def decile_plot(deciles: NDArray[np.int64], outcomes: Floats, months: NDArray[np.int64], title: str) -> Figure:
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
    figure, axes = _axes(title, "decile of the prediction within its month (10: highest)", "mean return of the month")
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


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
