"""The description of a price file: what was taken for what, and what only the whole history tells."""

from collections import Counter

import numpy as np

from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.price_report import named
from lightning_cnn.datamodules.returns.price_source import PriceSource
from lightning_cnn.datamodules.returns.windows import JUMP

QUARTERLY, SELDOM = "quarterly", "not every month"


def describe(found: Prices, source: PriceSource, why: str, positive: bool) -> None:
    """Says of a file what was taken for what.

    Args:
        found: Its prices.
        source: The file, after it was read.
        why: Why the last month counts as finished or not.
        positive: Whether they are prices, not another series.
    """
    report, layout, table = found.report, source.layout, source.table
    files = f", {len(source.files):,} files" if source.is_folder else ""
    kinds = {
        "wide": "wide: a row per date, a column per ticker",
        "long": "long: a row per date and ticker",
        "one_stock": "one file per ticker" if source.is_folder else f"one stock, {layout.constant}",
    }
    columns = [table.names[place] for place in layout.places.values()]
    taken = f"{layout.field.kind}" + (f" ({', '.join(columns)})" if columns else "")
    if layout.kind == "wide" and not layout.field.value:
        taken = "prices" if found.returns is None else "returns"
    elif layout.kind == "wide":
        taken = f"{layout.field.kind} ({layout.field.value})"
    ticker = "names of the columns" if layout.kind == "wide" else "names of the files"
    if layout.ticker is not None:
        ticker = f"column {table.names[layout.ticker]}"
    elif layout.kind == "long":
        ticker = "names of the folders"
    count = len(found.months)
    span = f"{found.months[0]} to {found.months[-1]}, {count:,} month{'s' * (count != 1)}"
    decided = f"{np.datetime64(source.last_day, 'D').astype('datetime64[M]')} counts as "
    decided += "unfinished" if report.unfinished else "finished"
    report.facts = {
        "file": f"{source.path} ({table.format}{files})",
        "layout": kinds[layout.kind] + (f"; {layout.vendor}" if layout.vendor else ""),
        "dates": f"{table.names[layout.date]}, {source.form.text}, {_often(found)}",
        "taken": taken,
        "identifiers": f"{ticker}, {len(found.tickers):,}: {named(found.tickers)}",
        "months": span,
        "last month": f"{decided}: {why}",
    }
    if layout.field.kind == "close" and layout.field.value and positive:
        report.warnings.append(
            "the close is taken as it is; unless your source has adjusted it, splits and dividends count as returns"
        )
    if source.skipped:
        name, reason = next(iter(source.skipped.items()))
        files = "1 file was" if len(source.skipped) == 1 else f"{len(source.skipped):,} files were"
        report.warnings.append(f"{files} skipped, such as {name}: {reason}")
    if _often(found) in (QUARTERLY, SELDOM):
        report.warnings.append("windows need a price in each month, and there are months without any")


def _often(found: Prices) -> str:
    """How often there are prices."""
    if found.daily:
        return "daily"
    rows = np.flatnonzero(np.isfinite(found.closes).any(1))
    apart = int(np.median(np.diff(rows))) if len(rows) > 1 else 1
    return {1: "monthly", 3: QUARTERLY}.get(apart, SELDOM)


def count_gaps_and_jumps(prices: Prices) -> None:
    """Counts what only the whole history tells; it decides about nothing."""
    report = prices.report
    known = np.isfinite(prices.closes if prices.returns is None else prices.returns)
    some = known.any(0)
    first, last = known.argmax(0), len(known) - 1 - known[::-1].argmax(0)
    gaps = np.where(some, last + 1 - first - known.sum(0), 0)
    report.gaps = int(gaps.sum())
    report.stopped = int((some & (last < len(known) - 1)).sum())
    report.unchanged = int((np.nanmin(prices.closes, 0) == np.nanmax(prices.closes, 0)).sum()) if some.any() else 0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a jump without bounds is one, too
        ratios = prices.closes[1:] / prices.closes[:-1]
    jumps = ((ratios > JUMP) | ((ratios < 1 / JUMP) & (ratios > 0))).sum(0)
    report.jumps = int(jumps.sum())
    order = np.argsort(-jumps, kind="stable")
    report.jumping = [prices.tickers[number] for number in order if jumps[number]]
    for rule, counts in (("gaps", gaps), ("jumps", jumps)):
        report.count(rule, Counter({prices.tickers[n]: int(counts[n]) for n in np.flatnonzero(counts)}))
