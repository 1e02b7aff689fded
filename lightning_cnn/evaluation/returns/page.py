"""The page of the report: one HTML file with its figures inside."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from lightning_cnn.evaluation.returns import performance
from lightning_cnn.evaluation.returns.measures import Evaluation, Method
from lightning_cnn.figures import page as pages
from lightning_cnn.figures import returns_report as charts

Number = Callable[[float], str]
NAMES = {"momentum_12_1": "12-1 momentum", "reversal": "short-term reversal"}

CAPTIONS = {
    "long_short": ("Long the highest group, short the lowest", "Above: what 1 becomes. Below: the model's loss since "
                   "its highest wealth, net of costs, and the value traded each month as a share of the capital."),
    "deciles": ("Groups of stocks by prediction", "Mean monthly return of each group, with its standard error. A "
                "signal shows as a slope, not as a single high bar."),
    "calibration": ("Calibration", "Observed share of outcomes above 0 by predicted probability, in ten bins of equal "
                    "size, with two standard errors. The dotted line is perfect calibration."),
    "ic_months": ("Rank IC of each month", "Rank correlation of predictions and outcomes within the month."),
    "ic_years": ("Rank IC by year", "A reliable signal does not depend on one or two years."),
    "ic_methods": ("The model and the baselines", "Cumulative rank IC: a steeper line means a better "
                   "ranking of the stocks."),
    "auc_months": ("AUC of each month", "Within the month, so differences between months have no effect."),
}  # fmt: skip


def _percent(digits: int) -> Number:
    return lambda value: f"{100 * value:z.{digits}f} %"


def _plain(digits: int) -> Number:
    return lambda value: f"{value:z.{digits}f}"


# of the table: header, small print, name of the number, format
COLUMNS: Sequence[tuple[str, str, str, Number]] = (
    ("accuracy", "see base rate", "acc", _percent(2)),
    ("AUC", "all months", "auc", _plain(4)),
    ("AUC", "within months", "auc_month", _plain(4)),
    ("rank IC", "mean", "ic", _plain(4)),
    ("t", "of the IC", "ic_t", _plain(2)),
    ("positive", "months", "ic_positive", _percent(0)),
    ("spread", "a month", "spread", _percent(2)),
    ("return", "a year, gross", "return", _percent(1)),
    ("return", "a year, net", "return_net", _percent(1)),
    ("volatility", "a year", "volatility", _percent(1)),
    ("Sharpe", "gross", "sharpe", _plain(2)),
    ("Sharpe", "net, 95 % interval", "sharpe_net", _plain(2)),
    ("drawdown", "net", "drawdown", _percent(1)),
    ("turnover", "a month", "turnover", _percent(0)),
    ("calibration", "error", "ece", _plain(3)),
)


def number(value: float, form: Number) -> str:
    """A formatted number; `-` if it is not finite."""
    return form(value) if math.isfinite(value) else "-"


def interval(method: Method) -> str:
    """The interval of a method's Sharpe ratio."""
    low, high = method.numbers["sharpe_low"], method.numbers["sharpe_high"]
    return f"{low:.2f} to {high:.2f}" if math.isfinite(low) else "-"


def title(name: str) -> str:
    """The display name of a method."""
    return NAMES.get(name, name.replace("_", " "))


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """All figures by name."""
    months, model = evaluation.months, evaluation.model
    baselines = [method for method in evaluation.methods[1:] if any(map(math.isfinite, method.ic))]
    ranking = {title(method.name): method for method in (model, *baselines)}
    portfolio = model.portfolio
    found = {
        "long_short": charts.long_short(
            months,
            {name: performance.wealth(method.portfolio.net) for name, method in ranking.items()},
            performance.wealth(portfolio.gross),
            performance.drawdown(portfolio.net),
            portfolio.turnover,
        ),
        "ic_months": charts.by_month(months, model.ic, "rank IC", 0.0),
        "ic_years": charts.by_year(performance.by_year(months, model.ic), "mean rank IC"),
        "ic_methods": charts.cumulative_ics(months, {name: method.ic for name, method in ranking.items()}),
        "auc_months": charts.by_month(months, model.auc_month, "AUC within the month", 0.5),
        "deciles": charts.groups(model.groups, float(evaluation.market.mean())),
    }
    if any(method.calibration for method in evaluation.methods):
        curves = {name: method.calibration for name, method in ranking.items()}
        shown = {name: curve if curve and len(curve[0]) > 1 else None for name, curve in curves.items()}
        found["calibration"] = charts.calibration(shown, evaluation.up_rate)
    return found


def page(
    evaluation: Evaluation, images: Mapping[str, bytes], heading: str, facts: Sequence[str], notes: Sequence[str]
) -> str:
    """The whole page.

    Args:
        evaluation: Evaluation to report.
        images: Figures as PNG, by name.
        heading: What was evaluated.
        facts: Lines about where the predictions come from.
        notes: Caveats shown at the top.
    """
    shown = [(name, *CAPTIONS[name]) for name in CAPTIONS if name in images]
    return pages.page(
        "report.html",
        heading,
        _span(evaluation),
        notes=notes,
        tiles=_tiles(evaluation),
        methods=_methods(evaluation),
        figures=[(*caption, base64.b64encode(images[caption[0]]).decode()) for caption in shown],
        years=_years(evaluation),
        lines=[*facts, *explanations(evaluation)],
    )


def _span(evaluation: Evaluation) -> str:
    months, stocks = evaluation.months, evaluation.stocks
    counted = f"{stocks.min():,} to {stocks.max():,}" if stocks.min() < stocks.max() else f"{stocks.min():,}"
    return (
        f"{len(months)} month{'s' * (len(months) != 1)} out of sample, {months[0]} to {months[-1]}, "
        f"{counted} stocks a month, "
        f"{stocks.sum():,} predictions."
    )


def _tiles(evaluation: Evaluation) -> list[tuple[str, str]]:
    found = evaluation.model.numbers
    return [
        (number(found["ic"], _plain(4)), f"mean rank IC, t = {number(found['ic_t'], _plain(2))}"),
        (number(found["auc"], _plain(4)), f"AUC; within months {number(found['auc_month'], _plain(4))}"),
        (number(found["acc"], _percent(2)), f"accuracy; base rate {100 * evaluation.up_rate:.2f} %"),
        (number(found["sharpe_net"], _plain(2)), f"Sharpe ratio, net; 95 % interval {interval(evaluation.model)}"),
        (
            number(found["deflated"], _percent(1)),
            f"deflated Sharpe ratio, for {_count(evaluation.settings.trials)} tried; above 95 % is usually required",
        ),
    ]


Row = list[tuple[str, str]]  # each text with its small print
Table = tuple[Row, list[Row]]  # header and rows


def _methods(evaluation: Evaluation) -> Table:
    """A column for each method, so that the table is no wider than a small screen."""
    rows = []
    for head, small, name, form in COLUMNS:
        row = [(number(method.numbers[name], form), "") for method in evaluation.methods]
        if name == "sharpe_net":
            row = [(text, interval(method)) for (text, _), method in zip(row, evaluation.methods, strict=True)]
        rows.append([(head, small), *row])
    return [("", ""), *((title(method.name), "") for method in evaluation.methods)], rows


def _years(evaluation: Evaluation) -> Table:
    model = evaluation.model
    columns = {
        ("rank IC", "mean"): (model.ic, _plain(4)),
        ("AUC", "within months"): (model.auc_month, _plain(4)),
        ("long-short", "a month, gross"): (model.portfolio.gross, _percent(2)),
        ("long-short", "a month, net"): (model.portfolio.net, _percent(2)),
        ("all stocks", "a month"): (evaluation.market, _percent(2)),
    }
    means = [(performance.by_year(evaluation.months, values), form) for values, form in columns.values()]
    rows = [
        [(str(year), ""), *((number(mean.get(year, math.nan), form), "") for mean, form in means)]
        for year in means[-1][0]
    ]
    return [("year", ""), *columns], rows


def explanations(evaluation: Evaluation) -> list[str]:
    """How the numbers were computed and what they include."""
    settings, found = evaluation.settings, evaluation.model.numbers
    delisted = (
        f"AUC without delisted stocks (return 0 up to their last month, {evaluation.delisted:,} predictions): "
        f"{number(found['auc_listed'], _plain(4))}; with them {number(found['auc'], _plain(4))}."
        if evaluation.delisted
        else "No delisted stocks in these months (none has returns of exactly 0 up to its last month)."
    )
    lost = (
        f"Excluded because the stock has no price in the month: {evaluation.lost:,} further predictions. Losses of "
        "delisted stocks that the prices do not show are not included."
    )
    return [
        delisted,
        *([lost] if evaluation.lost else []),
        f"Compare accuracies with the base rate of {100 * evaluation.up_rate:.2f} %, the accuracy of always "
        "predicting a positive return.",
        f"Long-short: long the highest and short the lowest of {settings.deciles} groups, each with the whole "
        "capital, equally weighted, rebalanced every month. Stocks with equal predictions share their places evenly.",
        f"Costs: {settings.cost_bps:g} basis points of the value bought or sold. Turnover counts both sides, so 200 % "
        "replaces half of all positions; the mean excludes the first month, in which all positions are bought.",
        f"Interval of the Sharpe ratio: circular block bootstrap, 2,000 draws of blocks of "
        f"{settings.block_months} months.",
        f"Deflated Sharpe ratio (Bailey and López de Prado 2014), of the net returns, for "
        f"{_count(settings.trials)} on these data: the confidence of the test that the true Sharpe ratio exceeds the "
        "largest that so many strategies without skill would show by chance, one minus its p-value. It is not the "
        "probability that there is skill. Values above 95 % are usually required. It counts recorded runs "
        "only: give the number of all with the option trials.",
        "The long-short portfolio is self-financing, so no interest is subtracted; costs of borrowing stocks and "
        "market impact are not included.",
    ]


def _count(trials: int) -> str:
    return f"{trials:,} configuration{'s' * (trials != 1)}"
