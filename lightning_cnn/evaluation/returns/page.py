"""The page of the report: one HTML file with its pictures inside, that needs no network."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from lightning_cnn import __version__
from lightning_cnn.evaluation.returns import rank_statistics
from lightning_cnn.evaluation.returns.measures import Evaluation, Method
from lightning_cnn.figures.returns_report import title

Number = Callable[[float], str]

_STYLE = """
:root { --ink: #1d2430; --soft: #667085; --line: #e3e7ee; --paper: #fff; --ground: #f5f6f9; --mark: #eef4ff; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 28px 32px 48px; max-width: 1480px; background: var(--ground); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 22px; }
h2 { margin: 0 0 6px; font-size: 15px; }
p, li { color: var(--soft); margin: 4px 0; }
.note { background: #fdf1dd; border: 1px solid #f0d9ae; color: #8a4b06; border-radius: 10px; padding: 10px 16px;
  margin: 16px 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 14px; margin: 18px 0; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
.tiles b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(540px, 100%), 1fr)); gap: 18px;
  margin: 18px 0; }
.wide { overflow: auto; padding: 0; margin: 18px 0; }
.wide h2 { padding: 14px 18px 4px; }
img { display: block; width: 100%; height: auto; margin-top: 6px; }
.tall { grid-row: span 2; }
table { border-collapse: collapse; width: 100%; white-space: nowrap; font-size: 12px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 6px; text-align: right; border-top: 1px solid var(--line); }
th { border-top: 0; font-weight: 600; vertical-align: bottom; }
th small { display: block; font-weight: 400; font-size: 10px; color: var(--soft); }
th:first-child, td:first-child { padding-left: 18px; text-align: left; }
tr.model td { background: var(--mark); font-weight: 600; }
"""

CAPTIONS = {
    "long_short": ("Long the highest group, short the lowest", "Above: what 1 becomes. Below: the model's loss since "
                   "its highest wealth, net of costs, and the value traded each month as a share of the capital."),
    "deciles": ("Groups of stocks by prediction", "Mean return a month of each group, with its standard error. A "
                "signal shows as a slope, not as one tall bar."),
    "calibration": ("Calibration", "How often outcomes were above 0 where a probability was given, in ten bins of "
                    "equally many predictions. On the dotted line the probabilities are true."),
    "ic_months": ("Rank IC of each month", "Rank correlation of predictions and outcomes within the month."),
    "ic_years": ("Rank IC by year", "A signal that lives on one or two years is none to rely on."),
    "ic_methods": ("The model beside the baselines", "Running sum of the rank IC: the steeper, the better a method "
                   "orders the stocks."),
    "auc_months": ("AUC of each month", "Within the month, so that knowing good and bad months does not help."),
}  # fmt: skip


def _percent(digits: int) -> Number:
    return lambda value: f"{100 * value:z.{digits}f} %"


def _plain(digits: int) -> Number:
    return lambda value: f"{value:z.{digits}f}"


# of the table: header, small print, name of the number, format
COLUMNS: Sequence[tuple[str, str, str, Number]] = (
    ("accuracy", "beside the up-rate", "acc", _percent(2)),
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
    """A number for people, `-` where there is none."""
    return form(value) if math.isfinite(value) else "-"


def interval(method: Method) -> str:
    """The interval of a method's Sharpe ratio."""
    low, high = method.numbers["sharpe_low"], method.numbers["sharpe_high"]
    return f"{low:.2f} to {high:.2f}" if math.isfinite(low) else "-"


def page(
    evaluation: Evaluation, pictures: Mapping[str, Path], heading: str, facts: Sequence[str], notes: Sequence[str]
) -> str:
    """The whole page.

    Args:
        evaluation: What is reported.
        pictures: PNG files by name, in the order of the page.
        heading: What was evaluated.
        facts: Lines about where the predictions come from.
        notes: Warnings that must be read beside every number.
    """
    shown = {name: CAPTIONS[name] for name in CAPTIONS if name in pictures}
    cards = [
        f'<div class="card{" tall" * (name == "long_short")}"><h2>{escape(head)}</h2><p>{escape(text)}</p>'
        f"{_picture(pictures[name], head)}</div>"
        for name, (head, text) in shown.items()
    ]
    warnings = "".join(f'<div class="note">{escape(note)}</div>' for note in notes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(heading)} - lightning_cnn</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(heading)}</h1>
<p>lightning_cnn {escape(__version__)}, {datetime.now():%Y-%m-%d %H:%M}. {escape(_span(evaluation))}</p>
{warnings}
<div class="tiles">{_tiles(evaluation)}</div>
<div class="card wide"><h2>The model and the baselines, on the same months and stocks</h2>
{_table(evaluation)}</div>
<div class="charts">{"".join(cards)}</div>
<div class="card wide"><h2>Year by year</h2>{_years(evaluation)}</div>
<div class="card"><h2>How it was computed</h2><ul>{_method_lines(evaluation, facts)}</ul></div>
</body>
</html>
"""


def _span(evaluation: Evaluation) -> str:
    months, stocks = evaluation.months, evaluation.stocks
    counted = f"{stocks.min():,} to {stocks.max():,}" if stocks.min() < stocks.max() else f"{stocks.min():,}"
    return (
        f"{len(months)} months out of sample, {months[0]} to {months[-1]}, {counted} stocks a month, "
        f"{stocks.sum():,} predictions."
    )


def _tiles(evaluation: Evaluation) -> str:
    found = evaluation.model.numbers
    tiles = [
        (number(found["ic"], _plain(4)), f"mean rank IC, t = {number(found['ic_t'], _plain(2))}"),
        (number(found["auc"], _plain(4)), f"AUC; within months {number(found['auc_month'], _plain(4))}"),
        (number(found["acc"], _percent(2)), f"accuracy; up-rate {100 * evaluation.up_rate:.2f} %"),
        (number(found["sharpe_net"], _plain(2)), f"Sharpe ratio, net; 95 % interval {interval(evaluation.model)}"),
        (
            number(found["deflated"], _percent(0)),
            f"deflated Sharpe ratio: how probable it is no luck, with {_count(evaluation.settings.trials)} tried",
        ),
    ]
    return "".join(f'<div class="card"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)


def _table(evaluation: Evaluation) -> str:
    cells = "".join(f"<th>{escape(head)}<small>{escape(small)}</small></th>" for head, small, _, _ in COLUMNS)
    lines = [f"<tr><th>method</th>{cells}</tr>"]
    for method in evaluation.methods:
        values = [
            number(method.numbers[name], form)
            + f" ({interval(method)})" * (name == "sharpe_net" and math.isfinite(method.numbers[name]))
            for _, _, name, form in COLUMNS
        ]
        row = "".join(f"<td>{escape(text)}</td>" for text in [title(method.name), *values])
        lines.append(f'<tr class="model">{row}</tr>' if method is evaluation.model else f"<tr>{row}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _years(evaluation: Evaluation) -> str:
    columns = {
        "rank IC": (rank_statistics.by_year(evaluation.months, evaluation.model.ic), _plain(4)),
        "AUC within months": (rank_statistics.by_year(evaluation.months, evaluation.model.auc_month), _plain(4)),
        "long-short a month, gross": (
            rank_statistics.by_year(evaluation.months, evaluation.model.portfolio.gross),
            _percent(2),
        ),
        "long-short a month, net": (
            rank_statistics.by_year(evaluation.months, evaluation.model.portfolio.net),
            _percent(2),
        ),
        "all stocks a month": (rank_statistics.by_year(evaluation.months, evaluation.market), _percent(2)),
    }
    lines = ["<tr><th>year</th>" + "".join(f"<th>{escape(name)}</th>" for name in columns) + "</tr>"]
    for year in rank_statistics.by_year(evaluation.months, evaluation.market):
        values = [number(means.get(year, math.nan), form) for means, form in columns.values()]
        lines.append("<tr>" + "".join(f"<td>{text}</td>" for text in [str(year), *values]) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _method_lines(evaluation: Evaluation, facts: Sequence[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in [*facts, *explanations(evaluation)])


def explanations(evaluation: Evaluation) -> list[str]:
    """How the numbers are to be read."""
    settings, found = evaluation.settings, evaluation.model.numbers
    dead = (
        f"AUC without dead stocks (return 0 to their last month, {evaluation.dead:,} predictions): "
        f"{number(found['auc_alive'], _plain(4))}; with them {number(found['auc'], _plain(4))}."
        if evaluation.dead
        else "No stock is dead in these months (none has returns of exactly 0 up to its last month)."
    )
    lost = (
        f"Without an outcome, because the stock has no price in the month, and left out: {evaluation.lost:,} further "
        "predictions. Where the prices don't show how a stock ended, its last loss is in no number here."
    )
    return [
        dead,
        *([lost] if evaluation.lost else []),
        f"An accuracy is worth something only above the up-rate of {100 * evaluation.up_rate:.2f} %, which always "
        "saying up gets.",
        f"Long-short: the whole capital long the highest of {settings.deciles} groups and as much short the lowest, "
        "equally weighted, renewed every month. Stocks with equal predictions share their places evenly.",
        f"Costs: {settings.cost_bps:g} basis points of the value bought or sold. Turnover counts both sides, so 200 % "
        "replaces half of all positions; the mean leaves out the first month, in which everything is bought.",
        f"Interval of the Sharpe ratio: circular block bootstrap, 2,000 draws of blocks of "
        f"{settings.block_months} months.",
        f"Deflated Sharpe ratio (Bailey and Lopez de Prado 2014), of the net returns, for "
        f"{_count(settings.trials)} on these data; above 95 % is what one asks for. It knows only what was recorded: "
        "what was tried elsewhere must be added with --trials.",
        "Returns of the long-short portfolio need no capital of their own, so that no interest is subtracted; the cost "
        "of borrowing stocks, and what trading does to prices, are left out.",
    ]


def _count(trials: int) -> str:
    return f"{trials:,} configuration{'s' * (trials != 1)}"


def _picture(path: Path, text: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{content}">'
