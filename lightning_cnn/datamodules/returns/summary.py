"""What was cleaned in the prices, and how many windows each part has, as lines to print or to complain with."""

from collections.abc import Sequence

import numpy as np

from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.windows import Windows
from lightning_cnn.errors import UserError


def cleaning_report(name: str, prices: Prices, recipe: str, flaws: Sequence[str], distrusted: int) -> str:
    """How many prices each rule met, and what it did.

    Args:
        name: Of the data.
        prices: The prices, with what was found in them.
        recipe: The recipe.
        flaws: The flaws that are switched on.
        distrusted: Windows left out because their prices have jumped too often.
    """
    title = f"{name}: {len(prices.tickers):,} stocks, {prices.months[0]} to {prices.months[-1]}, recipe {recipe}"
    if flaws:
        title += f", with the flaws {', '.join(flaws)}"
    found = [*prices.report.lines(), ("distrusted windows", distrusted, "skipped: the price jumped too often")]
    rules = [f"  {rule:<18}{count:>12,}  {done}" for rule, count, done in found if count]
    return "\n".join([title, *rules])


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
    return f"  {part:<18}{len(windows):>12,}  windows of {stocks:,} stocks, {months}{up}{without}"


def check_part(part: str, months: str, windows: Windows, window_months: int) -> None:
    """Looks whether a part can be learned from or measured on.

    Args:
        part: Its name.
        months: Its months of outcome, in words.
        windows: Its windows.
        window_months: Months of a window.

    Raises:
        UserError: If there are no windows, or all outcomes are of one class.
    """
    if not len(windows):
        raise UserError(
            f"the months of {part}, {months}, have no stock with a complete window of {window_months} months: "
            "choose other months"
        )
    up = int((windows.outcomes > 0).sum())
    if part != "predict" and up in (0, len(windows)):
        raise UserError(
            f"all {len(windows)} outcomes of the months of {part}, {months}, are {'up' if up else 'not up'}: metrics "
            "need both classes; choose other months"
        )
