"""The pictures of the report, drawn without a display."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_cnn.evaluation.returns import performance, rank_statistics
from lightning_cnn.evaluation.returns.measures import Evaluation, Method
from lightning_cnn.resume.files import make_folder, replacing

BLUE, ORANGE, GREY = "#3366aa", "#dd7722", "#999999"
OTHERS = ("#2a9d8f", "#8e5ea2", "#c2a83e", "#b5485d", "#6b7a8f", "#5aa469")
WIDE = (7.6, 3.2)
ROLLING = 12  # months of the moving average


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """All pictures, by the name of their file."""
    drawn = {
        "long_short": _long_short(evaluation),
        "ic_months": _months(evaluation, evaluation.model.ic, "rank IC", 0.0),
        "ic_years": _years(evaluation),
        "ic_methods": _methods(evaluation),
        "auc_months": _months(evaluation, evaluation.model.auc_month, "AUC within the month", 0.5),
        "deciles": _groups(evaluation),
    }
    if any(method.calibration for method in evaluation.methods):
        drawn["calibration"] = _calibration(evaluation)
    return drawn


def save(drawn: dict[str, Figure], folder: Path, hint: str = "") -> dict[str, Path]:
    """Writes the pictures as PNG.

    Args:
        drawn: What `figures` returns.
        folder: The folder, made where it is missing.
        hint: What the user can do where it can't be written.

    Returns:
        Their paths.

    Raises:
        StorageError: If a picture can't be written.
    """
    make_folder(folder, hint)
    paths = {name: folder / f"{name}.png" for name in drawn}
    for name, figure in drawn.items():
        with replacing(paths[name], hint) as file:
            figure.savefig(file, dpi=110, format="png")
    return paths


def title(name: str) -> str:
    """A method's name for people."""
    known = {"momentum_12_1": "12-1 momentum", "reversal": "short-term reversal"}
    return known.get(name, name.replace("_", " "))


def _long_short(evaluation: Evaluation) -> Figure:
    """Wealth of the model before and after costs, of the baselines after costs; below, drawdown and turnover."""
    figure = Figure(figsize=(7.6, 7.4), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.2, 1.2])
    model = evaluation.model
    ends = np.concatenate([evaluation.months[:1] - 1, evaluation.months]).astype("datetime64[D]")
    for method, color in _baselines(evaluation):
        above.plot(
            ends, performance.wealth(method.portfolio.net), color=color, lw=1, label=f"{title(method.name)}, net"
        )
    above.plot(ends, performance.wealth(model.portfolio.gross), color=BLUE, ls="--", lw=1.3, label="model, gross")
    above.plot(ends, performance.wealth(model.portfolio.net), color=BLUE, lw=2, label="model, net of costs")
    above.axhline(1, color="black", lw=0.6)
    above.set_yscale("log")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = above.get_ylim()
    few = high < 2 * low  # ticks: each has room for its number
    above.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if few or _leading(value) in (2, 5) else "")
    above.set_ylabel("1 becomes")
    above.legend(frameon=False, fontsize=8, ncols=2)
    middle.fill_between(ends, performance.drawdown(model.portfolio.net), color=ORANGE, alpha=0.6, lw=0)
    middle.yaxis.set_major_formatter(PercentFormatter(1))
    middle.set_ylabel("drawdown, net")
    below.bar(ends[1:], model.portfolio.turnover, width=25, color=BLUE)
    below.yaxis.set_major_formatter(PercentFormatter(1))
    below.set_ylabel("turnover")
    for axes in (above, middle, below):
        _plain(axes)
    return figure


def _months(evaluation: Evaluation, values: performance.Floats, name: str, neutral: float) -> Figure:
    """A bar for each month, and the mean of the last twelve."""
    figure = Figure(figsize=WIDE, layout="constrained")
    axes = figure.subplots()
    days = evaluation.months.astype("datetime64[D]")
    height = np.nan_to_num(values - neutral)
    axes.bar(days, height, bottom=neutral, width=25, color=np.where(height >= 0, BLUE, ORANGE), alpha=0.7)
    if len(values) >= ROLLING:
        known, window = np.isfinite(values), np.ones(ROLLING)
        counts = np.convolve(known, window, "valid")  # of the months that have a value
        with np.errstate(invalid="ignore"):
            means = np.convolve(np.where(known, values, 0), window, "valid") / counts
        axes.plot(days[ROLLING - 1 :], means, color="black", lw=1.5, label=f"mean of {ROLLING} months")
        axes.legend(frameon=False)
    axes.axhline(neutral, color="black", lw=0.6)
    axes.set_ylabel(name)
    _plain(axes)
    return figure


def _years(evaluation: Evaluation) -> Figure:
    figure = Figure(figsize=WIDE, layout="constrained")
    axes = figure.subplots()
    means = rank_statistics.by_year(evaluation.months, evaluation.model.ic)
    years, values = [str(year) for year in means], list(means.values())
    bars = axes.bar(years, values, color=[BLUE if value >= 0 else ORANGE for value in values])
    axes.bar_label(bars, [f"{value:.3f}" for value in values], fontsize=8, padding=2)
    axes.margins(y=0.15)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_ylabel("mean rank IC")
    _plain(axes)
    return figure


def _methods(evaluation: Evaluation) -> Figure:
    """The running sum of the IC: the slope is how well a method orders the stocks."""
    figure = Figure(figsize=WIDE, layout="constrained")
    axes = figure.subplots()
    days = evaluation.months.astype("datetime64[D]")
    for method, color in [*_baselines(evaluation), (evaluation.model, BLUE)]:
        own = method is evaluation.model
        axes.plot(days, np.nancumsum(method.ic), color=color, lw=2 if own else 1, label=title(method.name))
    axes.axhline(0, color="black", lw=0.6)
    axes.set_ylabel("sum of the rank IC so far")
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return figure


def _groups(evaluation: Evaluation) -> Figure:
    """Mean return a month of each group of stocks, with its standard error, and that of all stocks."""
    figure = Figure(figsize=WIDE, layout="constrained")
    axes = figure.subplots()
    groups = evaluation.model.groups
    count = groups.shape[1]
    errors = groups.std(axis=0, ddof=1) / math.sqrt(len(groups)) if len(groups) > 1 else None
    numbers = np.arange(1, count + 1)
    axes.bar(numbers, groups.mean(axis=0), yerr=errors, color=BLUE, ecolor=GREY, capsize=3)
    axes.axhline(evaluation.market.mean(), color=ORANGE, ls="--", label="all stocks, equally weighted")
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(numbers)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_xlabel(f"group of the prediction, 1 the lowest, {count} the highest")
    axes.set_ylabel("mean return a month")
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def _calibration(evaluation: Evaluation) -> Figure:
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes = figure.subplots()
    drawn = []
    for method, color in [*_baselines(evaluation), (evaluation.model, BLUE)]:
        if method.calibration and len(method.calibration[0]) > 1:
            predicted, up, _ = method.calibration
            own = method is evaluation.model
            axes.plot(predicted, up, color=color, marker="o", ms=4, lw=2 if own else 1, label=title(method.name))
            drawn += [*predicted, *up]
    bounds = (min(drawn, default=0.0) - 0.01, max(drawn, default=1.0) + 0.01)
    axes.plot(bounds, bounds, color="black", lw=0.8, ls=":", label="perfect")
    axes.axhline(evaluation.up_rate, color=GREY, lw=0.8, ls="--", label="up-rate")
    axes.set(xlabel="predicted probability", ylabel="share of outcomes above 0")
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return figure


def _baselines(evaluation: Evaluation) -> list[tuple[Method, str]]:
    """The baselines that order stocks at all, each with its color."""
    ordering = [method for method in evaluation.methods[1:] if np.isfinite(method.ic).any()]
    return [(method, OTHERS[number % len(OTHERS)]) for number, method in enumerate(ordering)]


def _leading(value: float) -> int:
    return round(value / 10 ** math.floor(math.log10(value) + 1e-9)) if value > 0 else 0


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
