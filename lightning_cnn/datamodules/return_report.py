"""What was cleaned in the prices, and how many windows each part has, as lines to print."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_cnn.datamodules.price_file import Prices
from lightning_cnn.datamodules.return_windows import Integers


def cleaning_report(name: str, prices: Prices, recipe: str, flaws: Sequence[str]) -> str:
    """How many prices each rule met, and what it did.

    Args:
        name: Of the data.
        prices: The prices, with what was found in them.
        recipe: The recipe.
        flaws: The flaws that are switched on.
    """
    title = f"{name}: {len(prices.tickers):,} stocks, {prices.months[0]} to {prices.months[-1]}, recipe {recipe}"
    if flaws:
        title += f", with the flaws {', '.join(flaws)}"
    rules = [f"  {rule:<18}{count:>12,}  {done}" for rule, count, done in prices.report.lines() if count]
    return "\n".join([title, *rules])


def part_line(part: str, first: str, last: str, tickers: Integers, outcomes: NDArray[np.float32]) -> str:
    """How many windows a part has.

    Args:
        part: Its name.
        first: Its first month of outcome.
        last: Its last.
        tickers: Number of the ticker of each window, `(n,)`.
        outcomes: Return of each window, `(n,)`; NaN where it is not known yet.
    """
    months = first if first == last else f"{first} to {last}"
    known = outcomes[np.isfinite(outcomes)]
    up = f", {100 * float((known > 0).mean()):.2f} % up" if len(known) else ""
    return f"  {part:<18}{len(tickers):>12,}  windows of {len(np.unique(tickers)):,} stocks, {months}{up}"
