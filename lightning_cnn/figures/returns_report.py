"""The figures of predicted returns, of arrays.

Of several methods the first is the model. It is drawn thick and blue, on top of the others.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from lightning_cnn.figures.style import BLUE, GRAY, ORANGE, finish, panel, show_dates

OTHERS = ("#2a9d8f", "#8e5ea2", "#c2a83e", "#b5485d", "#6b7a8f", "#5aa469")
WIDE = (7.6, 3.2)
ROLLING = 12  # months of the moving average
FEW_BARS = 6

Floats = NDArray[np.float64]
Months = NDArray[np.datetime64]


def long_short(months: Months, net: Mapping[str, Floats], gross: Floats, drawdown: Floats, turnover: Floats) -> Figure:
    """Wealth of the model before and after costs and of the others after costs; below, drawdown and turnover.

    Args:
        months: `(months,)`.
        net: Wealth after costs of each method, at the start and after each month, `(months + 1,)`.
        gross: Wealth of the model before costs, `(months + 1,)`.
        drawdown: Of the model, `(months + 1,)`.
        turnover: Of the model, `(months,)`.
    """
    figure = Figure(figsize=(7.6, 7.4), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.2, 1.2])
    ends = np.concatenate([months[:1] - 1, months]).astype("datetime64[D]")
    *others, (_, wealth, style) = _styled(net)
    for name, values, color in others:
        above.plot(ends, values, **color, label=f"{name}, net")
    above.plot(ends, gross, color=BLUE, ls="--", lw=1.3, label="model, gross")
    above.plot(ends, wealth, **style, label="model, net of costs")
    above.axhline(1, color="black", lw=0.6)
    above.set_yscale("log")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = above.get_ylim()
    few = high < 2 * low  # ticks: each has room for its number
    above.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if few or _leading(value) in (2, 5) else "")
    above.set_ylabel("1 becomes")
    _legend_outside(above)
    middle.fill_between(ends, drawdown, color=ORANGE, alpha=0.6, lw=0)
    middle.set_ylim(min(1.05 * float(drawdown.min()), -0.01), 0)
    middle.yaxis.set_major_formatter(PercentFormatter(1))
    middle.set_ylabel("drawdown, net")
    below.bar(ends[1:], turnover, width=25, color=BLUE)
    below.yaxis.set_major_formatter(PercentFormatter(1))
    below.set_ylabel("turnover")
    for axes in (above, middle, below):
        finish(axes)
    show_dates(below, months)
    return figure


def by_month(months: Months, values: Floats, name: str, neutral: float, title: str = "") -> Figure:
    """A bar for each month, and the mean of the last twelve.

    Args:
        months: `(months,)`.
        values: `(months,)`, NaN where there is none.
        name: What they are.
        neutral: Where the bars begin.
        title: The title.
    """
    figure, axes = panel(WIDE, ylabel=name, title=title)
    show_dates(axes, months)
    days = months.astype("datetime64[D]")
    height = np.nan_to_num(values - neutral)
    axes.bar(days, height, bottom=neutral, width=25, color=np.where(height >= 0, BLUE, ORANGE), alpha=0.7)
    if len(values) >= ROLLING:
        known, window = np.isfinite(values), np.ones(ROLLING)
        counts = np.convolve(known, window, "valid")  # of the months that have a value
        with np.errstate(invalid="ignore"):
            means = np.convolve(np.where(known, values, 0), window, "valid") / counts
        axes.plot(days[ROLLING - 1 :], means, **_seen(means), color="black", lw=1.5, label=f"mean of {ROLLING} months")
    above = Patch(color=BLUE, alpha=0.7, label=f"above {neutral:g}")
    below = Patch(color=ORANGE, alpha=0.7, label=f"below {neutral:g}")
    _legend_outside(axes, handles=[above, below, *axes.get_lines()])
    axes.axhline(neutral, color="black", lw=0.6)
    _room(axes, len(months), 31)
    return figure


def by_year(means: Mapping[int, float], name: str) -> Figure:
    """A bar with its number for each year."""
    figure, axes = panel(WIDE, ylabel=name)
    values = list(means.values())
    bars = axes.bar([*map(str, means)], values, color=[BLUE if value >= 0 else ORANGE for value in values])
    axes.bar_label(bars, [f"{value:.3f}" for value in values], fontsize=8, padding=2)
    axes.margins(y=0.15)
    axes.axhline(0, color="black", lw=0.6)
    _room(axes, len(values), 1)
    return figure


def cumulative_ics(months: Months, ics: Mapping[str, Floats]) -> Figure:
    """The running sum of the information coefficients of several methods: the slope is how well they rank.

    Args:
        months: `(months,)`.
        ics: Of each method, `(months,)`, NaN where there is none.
    """
    figure, axes = panel(WIDE, ylabel="sum of the rank IC so far")
    show_dates(axes, months)
    for name, values, color in _styled(ics):
        axes.plot(months.astype("datetime64[D]"), np.nancumsum(values), **_seen(months), **color, label=name)
    axes.axhline(0, color="black", lw=0.6)
    _legend_outside(axes)
    return figure


def groups(returns: Floats, market: float, title: str = "") -> Figure:
    """Mean monthly return of each group of stocks, with its standard error, and that of all stocks.

    Args:
        returns: `(months, groups)`, the group with the lowest predictions first.
        market: Mean return of all stocks.
        title: The title.
    """
    count = returns.shape[1]
    label = f"group of the prediction, 1 the lowest, {count} the highest"
    figure, axes = panel(WIDE, xlabel=label, ylabel="mean return a month", title=title)
    errors = returns.std(axis=0, ddof=1) / math.sqrt(len(returns)) if len(returns) > 1 else None
    numbers = np.arange(1, count + 1)
    axes.bar(numbers, returns.mean(axis=0), yerr=errors, color=BLUE, ecolor=GRAY, capsize=3)
    axes.axhline(market, color=ORANGE, ls="--", label="all stocks, equally weighted")
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(numbers)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _legend_outside(axes)
    return figure


def calibration(curves: Mapping[str, tuple[Floats, Floats, Floats] | None], up_rate: float, title: str = "") -> Figure:
    """How often outcomes are positive, by predicted probability, with two standard errors.

    Args:
        curves: Mean probability, share of positive outcomes and size of each group by method; None of one without.
        up_rate: Share of positive outcomes over all.
        title: The title.
    """
    figure, axes = panel((7.6, 3.6), xlabel="predicted probability", ylabel="share of outcomes above 0", title=title)
    values: list[float] = []
    for name, curve, color in _styled(curves):
        if curve is not None:
            said, seen, count = curve
            error = 2 * np.sqrt(seen * (1 - seen) / count)
            within = np.minimum([error, error], [seen, 1 - seen])  # shares lie between 0 and 1
            axes.errorbar(said, seen, within, **color, marker="o", ms=4, elinewidth=1, label=name)
            values += [*said, *seen]
    bounds = (min(values, default=0.0) - 0.01, max(values, default=1.0) + 0.01)
    axes.plot(bounds, bounds, color="black", lw=0.8, ls=":", label="perfect")
    axes.axhline(up_rate, color=GRAY, lw=0.8, ls="--", label="base rate")
    _legend_outside(axes)
    return figure


def _seen(values: Any) -> dict[str, Any]:
    """The marker of a line, which a single point needs."""
    return {"marker": "o"} if len(values) == 1 else {}


def _room(axes: Axes, bars: int, apart: float) -> None:
    """Keeps few bars from being as wide as the figure."""
    if bars < FEW_BARS:
        low, high = axes.get_xlim()
        spare = (FEW_BARS - bars) / 2 * apart
        axes.set_xlim(low - spare, high + spare)


def _legend_outside(axes: Axes, **options: Any) -> None:
    """A legend above the axes, where it hides no line."""
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), **options)


def _styled(methods: Mapping[str, Any]) -> list[tuple[str, Any, dict[str, Any]]]:
    """The methods in the order in which they are drawn, the model last, each with its line style."""
    (name, model), *others = methods.items()
    lines = [
        (other, values, {"color": OTHERS[number % len(OTHERS)], "lw": 1})
        for number, (other, values) in enumerate(others)
    ]
    return [*lines, (name, model, {"color": BLUE, "lw": 2})]


def _leading(value: float) -> int:
    return round(value / 10 ** math.floor(math.log10(value) + 1e-9)) if value > 0 else 0
