"""`lightning-cnn report`: the table of a report."""

import math
from typing import TYPE_CHECKING

from lightning_cnn.cli.parser import parser_for
from lightning_cnn.cli.tables import text_table

if TYPE_CHECKING:
    from lightning_cnn.evaluation.returns.measures import Evaluation

IN_TERMINAL = ("acc", "auc", "auc_month", "ic", "ic_t", "ic_positive", "sharpe", "sharpe_net", "turnover")


def main(verb: str, argv: list[str]) -> int:
    """Evaluates predictions, writes the page and prints the table. Returns the exit code."""
    parser = parser_for(verb, "engine/report")
    options = parser.parse_args(argv)

    from lightning_cnn.engine.report import report

    found = report(**parser.arguments(options))
    print(summary(found.evaluation))
    print(f"wrote {found.page}")
    return 0


def summary(evaluation: "Evaluation") -> str:
    """The table for the terminal."""
    from lightning_cnn.evaluation.returns.page import COLUMNS, interval, number, title

    chosen = [column for column in COLUMNS if column[2] in IN_TERMINAL]
    head = [
        f"{name} {small.split(',')[0]}" if name in ("AUC", "Sharpe", "return") else name for name, small, _, _ in chosen
    ]
    rows = [["", *head, "95 % interval"]]
    for method in evaluation.methods:
        values = [number(method.numbers[name], form) for _, _, name, form in chosen]
        rows.append([title(method.name), *values, interval(method)])
    found, settings = evaluation.model.numbers, evaluation.settings
    lines = [
        text_table(rows, right=[False, *[True] * (len(head) + 1)]),
        "",
        f"{len(evaluation.months)} month{'s' * (len(evaluation.months) != 1)}, "
        f"{evaluation.months[0]} to {evaluation.months[-1]}, "
        f"{evaluation.stocks.sum():,} predictions; base rate {100 * evaluation.up_rate:.2f} %; "
        f"net of {settings.cost_bps:g} basis points",
    ]
    if math.isfinite(found["deflated"]):
        tried = f"{settings.trials} configuration{'s' * (settings.trials != 1)} tried on these data"
        lines.append(f"deflated Sharpe ratio {found['deflated']:.1%} ({tried})")
    if evaluation.delisted:
        lines.append(f"AUC without delisted stocks {found['auc_listed']:.4f}, with them {found['auc']:.4f}")
    if evaluation.lost:
        lines.append(f"excluded, because the stock has no price in the month: {evaluation.lost:,} further predictions")
    if warning := evaluation.warning():
        lines.append(f"warning: {warning}")
    return "\n".join(lines)
