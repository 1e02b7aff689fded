"""What was cleaned in the prices, and how many windows each part has, as lines to print or to complain with."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lightning_cnn.datamodules.returns.panel import Panel
from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.windows import Windows
from lightning_cnn.errors import UserError

DONE = {
    "infinite values": "skipped: they cost their month",
    "distrusted windows": "skipped: the price jumped too often",
    "halted windows": "skipped: bankrupt, or without a price in the last week of the month before",
}


def cleaning_report(name: str, panel: Panel, recipe: str, flaws: Sequence[str]) -> str:
    """How many prices each rule met, and what it did.

    Args:
        name: Of the data.
        panel: The prices, with what was found in them.
        recipe: The recipe.
        flaws: The flaws that are switched on.
    """
    prices = panel.prices
    title = f"{name}: {len(prices.tickers):,} stocks, {prices.months[0]} to {prices.months[-1]}, recipe {recipe}"
    if flaws:
        title += f", with the flaws {', '.join(flaws)}"
    found = [*prices.report.lines(), *[(rule, count, DONE[rule]) for rule, count in panel.skipped.items()]]
    rules = [f"  {rule:<20}{count:>12,}  {done}" for rule, count, done in found if count]
    channels = [f"  channel {name}: {text}" for name, text in panel.channels.items()]
    return "\n".join([title, *prices.report.text(), *rules, *channels])


def ticker_table(prices: Prices) -> pd.DataFrame:
    """A row for each ticker: its first and last month, how many it has, how it ends, and how often each rule met it.

    Args:
        prices: The prices.
    """
    known = np.isfinite(prices.closes if prices.returns is None else prices.returns)
    report, last = prices.report, len(known) - 1 - known[::-1].argmax(0)
    months = prices.months.astype(str)
    ends = np.where(last < len(known) - 1, "stopped", "")
    frame = pd.DataFrame(
        {
            "ticker": prices.tickers,
            "first": months[known.argmax(0)],
            "last": months[last],
            "months": known.sum(0),
            "end": np.where(np.isin(prices.tickers, report.bankrupt), "bankrupt", ends),
        }
    )
    dropped = {ticker: "no price: dropped" for ticker in report.by_ticker.get("empty", ())}
    dropped |= {name: f"file skipped: {why}" for name, why in report.skipped_files.items()}
    empty = pd.DataFrame({"ticker": [*dropped], "first": "", "last": "", "months": 0, "end": [*dropped.values()]})
    frame = pd.concat([frame, empty], ignore_index=True) if dropped else frame
    for rule, counts in report.by_ticker.items():
        if rule != "empty":
            frame[rule] = frame["ticker"].map(counts).fillna(0).astype(int)
    return frame


def part_line(part: str, months: str, windows: Windows, lost: int) -> str:
    """How many windows a part has.

    Args:
        part: Its name.
        months: Its months of outcome, in words.
        windows: Its windows.
        lost: Further windows, left out because their stock has no price in the month.
    """
    outcomes = windows.outcomes.numpy()
    known = outcomes[np.isfinite(outcomes)]
    up = f", {100 * float((known > 0).mean()):.2f} % up" if len(known) else ""
    without = f"; {lost:,} more without a price in the month, skipped" if lost else ""
    stocks = len(np.unique(windows.tickers))
    return f"  {part:<20}{len(windows):>12,}  windows of {stocks:,} stocks, {months}{up}{without}"


def check_part(part: str, months: str, windows: Windows, window_months: int, blame: str = "") -> None:
    """Looks whether a part can be learned from or measured on.

    Args:
        part: Its name.
        months: Its months of outcome, in words.
        windows: Its windows.
        window_months: Months of a window.
        blame: The series that most windows are not whole for, in words.

    Raises:
        UserError: If there are no windows, or all outcomes are of one class.
    """
    if not len(windows):
        raise UserError(
            f"the months of {part}, {months}, have no stock with a complete window of {window_months} months"
            + (f"; {blame}: fill its gaps, or remove it" if blame else ": choose other months")
        )
    up = int((windows.outcomes > 0).sum())
    if part != "predict" and up in (0, len(windows)):
        raise UserError(
            f"all {len(windows)} outcomes of the months of {part}, {months}, are {'up' if up else 'not up'}: metrics "
            "need both classes; choose other months"
        )
