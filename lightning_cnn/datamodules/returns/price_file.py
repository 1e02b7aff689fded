"""Price files: Parquet or CSV, wide or long, daily or monthly, in any order."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
from numpy.typing import NDArray

from lightning_cnn.datamodules.returns.price_table import Floats, PriceTable
from lightning_cnn.errors import UserError, did_you_mean

DAILY = 3  # different days in a month, above which prices are those of days
JUMP = 10
UNFINISHED = 7  # days without a price at the end of the last month, above which it is not over


@dataclass
class PriceReport:
    """What was found in a price file, and what was done about it; see `read_prices`.

    Attributes:
        given: Prices in the file, missing ones included.
        missing: Prices that are no number.
        nonpositive: Prices of zero or below.
        duplicates: Prices for a ticker and day that had one.
        unsorted: Rows of a wide file, or prices of a long one, that come after a later date of the same ticker.
        empty: Tickers without any price.
        unchanged: Tickers with one price in all their months.
        gaps: Months without a price between the first and the last one of a ticker.
        stopped: Tickers whose prices end before the last month.
        unfinished: Whether the last month is not over.
        jumps: Months in which a price grows more than tenfold, or falls below a tenth.
        jumping: The tickers that do so, those with most of such months first.
    """

    given: int = 0
    missing: int = 0
    nonpositive: int = 0
    duplicates: int = 0
    unsorted: int = 0
    empty: int = 0
    unchanged: int = 0
    gaps: int = 0
    stopped: int = 0
    unfinished: int = 0
    jumps: int = 0
    jumping: list[str] = field(default_factory=list)

    def lines(self) -> list[tuple[str, int, str]]:
        """Name and count of each rule, and what was done."""
        return [
            ("prices", self.given, "in the file"),
            ("missing", self.missing, "skipped"),
            ("zero or negative", self.nonpositive, "skipped"),
            ("duplicates", self.duplicates, "the later one in the file counts"),
            ("unsorted", self.unsorted, "put in order"),
            ("gaps", self.gaps, "months without a price inside a history; no window reaches over them"),
            ("empty tickers", self.empty, "dropped"),
            ("stopped tickers", self.stopped, "their windows end with their prices"),
            ("unchanged tickers", self.unchanged, "windows in which the price never changes are skipped"),
            ("jumps", self.jumps, f"tenfold within a month; wrong prices? {', '.join(self.jumping[:5])}"),
            ("unfinished month", self.unfinished, "skipped: it is the one to predict"),
        ]


@dataclass
class Prices:
    """Month-end prices of many tickers.

    Attributes:
        months: Consecutive calendar months, datetime64[M], `(months,)`.
        tickers: Their names.
        closes: The last price of each month, `(months, tickers)`, NaN where there is none.
        daily: Whether the file has prices of days.
        report: What was found in the file, and what was done about it.
        days: With daily prices kept: the days with prices, datetime64[D], `(days,)`.
        day_closes: With daily prices kept: `(days, tickers)`, NaN where there is none.
        stale: With daily prices: where the last price of a month is more than 7 days older than that of the others,
            `(months, tickers)`.
    """

    months: NDArray[Any]
    tickers: list[str]
    closes: Floats
    daily: bool = False
    report: PriceReport = field(default_factory=PriceReport)
    days: NDArray[Any] | None = None
    day_closes: Floats | None = None
    stale: NDArray[np.bool_] | None = None

    def without(self, names: Sequence[str]) -> "Prices":
        """The prices of the other tickers.

        Args:
            names: Tickers to leave out.

        Raises:
            UserError: If there is no such ticker, or no other.
        """
        for name in names:
            if name not in self.tickers:
                hint = did_you_mean(name, self.tickers) or f"; there are {', '.join(self.tickers[:5])}, ..."
                raise UserError(f"`data.leave_out` {name}: the prices have no such ticker{hint}")
        kept = np.flatnonzero(~np.isin(self.tickers, names))
        if not len(kept):
            raise UserError("`data.leave_out` excludes all tickers: exclude fewer")
        days = None if self.day_closes is None else self.day_closes[:, kept]
        stale = None if self.stale is None else self.stale[:, kept]
        tickers = [self.tickers[number] for number in kept]
        return replace(self, tickers=tickers, closes=self.closes[:, kept], day_closes=days, stale=stale)


Given = ParamSpec("Given")
_kept: list[dict[Any, Prices]] = []  # of the blocks that this process is in


@contextmanager
def prices_kept() -> Iterator[None]:
    """Within the block a file of prices is read once, and again only where it has changed: nobody may write into them.

    For many data modules on the same prices, such as those of the folds of a walk-forward.
    """
    _kept.append({})
    try:
        yield
    finally:
        _kept.pop()


def _once(read: Callable[Concatenate[str | Path, Given], Prices]) -> Callable[Concatenate[str | Path, Given], Prices]:
    """Lets a function read a file once within `prices_kept`."""

    @wraps(read)
    def kept(path: str | Path, /, *options: Given.args, **named: Given.kwargs) -> Prices:
        if not _kept or not os.path.exists(path):
            return read(path, *options, **named)
        facts = os.stat(path)
        key = Path(path).resolve(), facts.st_ino, facts.st_size, facts.st_mtime_ns, options, tuple(named.items())
        if key not in _kept[-1]:
            _kept[-1][key] = read(path, *options, **named)
        return _kept[-1][key]

    return kept


@_once
def read_prices(
    path: str | Path,
    date_column: str | None = None,
    ticker_column: str | None = None,
    price_column: str | None = None,
    keep_days: bool = False,
    positive: bool = True,
    mean: bool = False,
) -> Prices:
    """Reads adjusted closes, wide (a row a date, a column a ticker) or long (a row a date and ticker).

    What may be wrong in a file is handled by these rules, and counted in `Prices.report`:

    - A month's price is the last one of that month, whatever the order of the rows.
    - Of several prices for a ticker and day the later one in the file counts; so with two columns of one name.
    - Missing prices, and prices of zero or below, are left out.
    - A month without a price stays without one, also where no ticker has one: no window reaches over such a gap. A
      ticker that stops trading has no prices from then on, and its windows end there.
    - The last month of daily prices is left out where it is not over: where they end more than 7 days before its end.
    - A ticker without any price is dropped.
    - A price that never changes is kept, because only later prices could tell; `MonthlyReturns` leaves out windows in
      which the price does not change.
    - A month in which a price grows more than tenfold, or falls below a tenth, is kept, because to leave out returns
      by their size is to choose results; but the tickers are named. `MonthlyReturns` leaves out all windows that come
      after such a jump and the way back.
    - An infinite price is refused.

    Args:
        path: The file: Parquet, or `.csv` (also `.csv.gz`) with commas, semicolons or tabs between its columns.
        date_column: The column of dates; default the one called date, day, month, time, ..., or the only one of dates.
            Dates are dates, timestamps, text such as `2017-12-29` or `2017-12`, or numbers such as 20171229 or 201712.
        ticker_column: The column of tickers of a long file; default the one called ticker, symbol, permno, ...
        price_column: The column of prices of a long file; default the one called adj_close, close, price, ...
        keep_days: Whether to keep the prices of all days, too.
        positive: Whether only positive values count; not so for series other than prices.
        mean: Whether to take the mean of each month instead of its last value.

    Raises:
        UserError: If the file is missing or damaged, has no dates or no prices, or holds an infinite price.
    """
    from lightning_cnn.datamodules.returns.price_columns import PriceSource  # imports pyarrow

    source = PriceSource(Path(path), date=date_column, ticker=ticker_column, price=price_column)
    report, monthly = PriceReport(), PriceTable("M", mean)
    daily = PriceTable("D") if keep_days else None
    for days, codes, prices, rows in source.cells():
        report.given += len(prices)
        report.missing += int(np.isnan(prices).sum())
        report.nonpositive += int((prices <= 0).sum()) if positive else 0
        good = prices > 0 if positive else ~np.isnan(prices)
        if not good.all():
            days, codes, prices, rows = days[good], codes[good], prices[good], rows[good]
        if (infinite := np.isinf(prices)).any():
            worst = int(infinite.argmax())
            raise UserError(
                f"{path}: the price of {source.tickers[codes[worst]]} on {days[worst].astype('datetime64[D]')} is "
                "infinite: correct or remove it"
            )
        monthly.add(days, codes, prices, rows)
        if daily is not None:
            daily.add(days, codes, prices, rows)
    report.unsorted, report.duplicates = source.unsorted, monthly.duplicates()
    months, closes = monthly.result(len(source.tickers))
    if not len(months):
        raise UserError(f"{path}: none of its {len(source.tickers)} tickers has a price: use another file")
    days_of_months = monthly.days_of_months()
    is_daily = bool(np.median(np.bitwise_count(days_of_months)) > DAILY)
    last_day = (months[-1] + 1).astype("datetime64[D]") - months[-1].astype("datetime64[D]")
    if is_daily and last_day.astype(int) - int(days_of_months[-1]).bit_length() > UNFINISHED and len(months) > 1:
        months, closes, report.unfinished = months[:-1], closes[:-1], 1
    known: NDArray[np.bool_] = np.asarray(np.isfinite(closes).any(0))
    tickers = [ticker for ticker, has_any in zip(source.tickers, known, strict=True) if has_any]
    found = Prices(months, tickers, closes[:, known], is_daily, report)
    if is_daily:
        last = monthly.last_days(len(source.tickers))[: len(months), known]
        found.stale = (last > 0) & (last < last.max(1, keepdims=True) - UNFINISHED)
    if daily is not None:
        all_days, day_closes = daily.result(len(source.tickers))
        traded = np.isfinite(day_closes).any(1)
        found.days, found.day_closes = all_days[traded], day_closes[traded][:, known]
    report.empty = len(source.tickers) - len(tickers)
    _count(found)
    return found


def _count(prices: Prices) -> None:
    """Counts what only the whole history tells; it decides about nothing."""
    known = np.isfinite(prices.closes)
    first, last = known.argmax(0), len(known) - 1 - known[::-1].argmax(0)
    prices.report.gaps = int((last + 1 - first - known.sum(0)).sum())
    prices.report.stopped = int((last < len(known) - 1).sum())
    prices.report.unchanged = int((np.nanmin(prices.closes, 0) == np.nanmax(prices.closes, 0)).sum())
    with np.errstate(over="ignore"):  # a jump without bounds is one, too
        ratios = prices.closes[1:] / prices.closes[:-1]
    jumps = ((ratios > JUMP) | (ratios < 1 / JUMP)).sum(0)
    prices.report.jumps = int(jumps.sum())
    order = np.argsort(-jumps, kind="stable")
    prices.report.jumping = [prices.tickers[number] for number in order if jumps[number]]
