"""One price of each ticker and month (or day), collected from rows in any order."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

Kept = Literal["last", "mean", "product"]

GROWTH = 64  # months, days or tickers by which a table grows at least
NEVER = np.iinfo(np.int64).min  # stamp of a place without a price
ROW_BITS = 40  # of a stamp; above them the day


class PriceTable:
    """The last price of each ticker in each month, or each day; of the same day, the later row's.

    It grows as prices come, so that a file need not be read twice, and its rows need no order.

    Args:
        unit: `M` for months, `D` for days.
        kept: The `last` price of the month, their `mean`, or the compounded `product` of returns. Of the same day the
            last two take the later row, too, but only where both come in one call.
    """

    def __init__(self, unit: str = "M", kept: Kept = "last") -> None:
        self.unit = unit
        self.kept = kept
        self.given = 0
        self._first = 0  # the period of row 0, counted from 1970
        self._prices: Floats = np.full((0, 0), np.nan)
        self._stamps: Integers = np.full((0, 0), NEVER)
        self._counts: Integers = np.full((0, 0), 0)
        self._seen: NDArray[np.uint32] = np.zeros((0, 0), dtype=np.uint32)  # a bit for each day of the month

    def add(self, days: Integers, codes: Integers, prices: Floats, rows: Integers) -> None:
        """Adds prices.

        Args:
            days: Day of each price, counted from 1970-01-01, `(n,)`.
            codes: Number of its ticker, `(n,)`, ascending; of each ticker the rows ascend.
            prices: The prices, `(n,)`.
            rows: Position in the file, `(n,)`.
        """
        if not len(days):
            return
        self.given += len(days)
        if ((days[1:] < days[:-1]) & (codes[1:] == codes[:-1])).any():
            order = np.argsort(codes * (days.max() - days.min() + 1) + days - days.min(), kind="stable")
            days, codes, prices, rows = days[order], codes[order], prices[order], rows[order]
        if self.kept != "last":
            kept = np.r_[(days[1:] != days[:-1]) | (codes[1:] != codes[:-1]), True]
            days, codes, prices, rows = days[kept], codes[kept], prices[kept], rows[kept]
        months, of_month = _month_and_day(days)
        periods = months if self.unit == "M" else days
        starts = np.flatnonzero(np.r_[True, (periods[1:] != periods[:-1]) | (codes[1:] != codes[:-1])])
        last = np.r_[starts[1:], len(days)] - 1
        self._grow(int(periods.min()), int(periods.max()), int(codes[-1]) + 1)
        where = periods[last] - self._first, codes[last]
        self._seen[where] |= np.bitwise_or.reduceat(np.uint32(1) << of_month, starts)
        if self.kept == "product":
            grown = np.multiply.reduceat(1 + prices, starts)
            self._prices[where] = np.where(np.isnan(self._prices[where]), 1, self._prices[where]) * grown
            return
        if self.kept == "mean":
            self._prices[where] = np.nan_to_num(self._prices[where]) + np.add.reduceat(prices, starts)
            self._counts[where] += last + 1 - starts
            return
        stamps = (days[last] << ROW_BITS) + rows[last]
        newer = stamps >= self._stamps[where]
        where = where[0][newer], where[1][newer]
        self._stamps[where] = stamps[newer]
        self._prices[where] = prices[last][newer]

    def duplicates(self) -> int:
        """How many prices were given for a ticker and day that had one."""
        return self.given - int(np.bitwise_count(self._seen).sum())

    def last_days(self, tickers: int) -> NDArray[np.int64]:
        """The last day of each month with a price, from 1 on, 0 for none, `(months, tickers)`; as long as `result`'s.

        Args:
            tickers: How many there are.
        """
        known = np.flatnonzero(self._seen.any(1))
        seen = self._seen[known[0] : known[-1] + 1, :tickers]
        return np.frexp(seen.astype(np.float64))[1].astype(np.int64)  # the place of the highest bit

    def latest(self, tickers: int) -> tuple[Integers, Floats]:
        """The day of the last price of each ticker, and that price, `(tickers,)`; `NEVER` and NaN for none.

        Args:
            tickers: How many there are.
        """
        self._grow(self._first, self._first, tickers)
        stamps, prices = self._stamps[:, :tickers], self._prices[:, :tickers]
        row, column = stamps.argmax(0), np.arange(tickers)
        last = stamps[row, column]
        return np.where(last == NEVER, NEVER, last >> ROW_BITS), prices[row, column]

    def days_of_months(self) -> NDArray[np.uint32]:
        """Which days of each month have a price, a bit for each day, `(months,)`; as long as `result`'s."""
        seen = np.bitwise_or.reduce(self._seen, axis=1)
        known = np.flatnonzero(seen)
        days: NDArray[np.uint32] = seen[known[0] : known[-1] + 1]
        return days

    def result(self, tickers: int) -> tuple[NDArray[Any], Floats]:
        """The periods as datetime64, and the prices `(periods, tickers)`, NaN where there is none.

        Args:
            tickers: How many there are.
        """
        self._grow(self._first, self._first, tickers)
        prices = self._prices[:, :tickers]
        if self.kept == "product":
            prices = prices - 1
        if self.kept == "mean":
            prices = prices / np.maximum(self._counts[:, :tickers], 1)
        known = np.flatnonzero(np.isfinite(prices).any(1))
        if not len(known):
            return np.empty(0, dtype=f"datetime64[{self.unit}]"), prices[:0]
        kept = slice(known[0], known[-1] + 1)
        periods = np.arange(self._first, self._first + len(prices)).astype(f"datetime64[{self.unit}]")
        return periods[kept], prices[kept]

    def _grow(self, low: int, high: int, tickers: int) -> None:
        periods, width = self._stamps.shape
        if not periods:
            self._first = low
        before = 0 if low >= self._first else max(GROWTH, self._first - low)
        after = max(0, high + 1 - self._first - periods)
        wider = max(0, tickers - width)
        if not (before or after or wider):
            return
        room = ((before, after and max(GROWTH, after)), (0, wider and max(GROWTH, width, wider)))
        self._prices = np.pad(self._prices, room, constant_values=np.nan)
        self._stamps = np.pad(self._stamps, room, constant_values=NEVER)
        self._counts = np.pad(self._counts, room)
        self._seen = np.pad(self._seen, room)
        self._first -= before


def _month_and_day(days: Integers) -> tuple[Integers, NDArray[np.uint32]]:
    """Months since 1970-01, and the day of the month from 0 on, of days since 1970-01-01."""
    low = int(days.min())
    span = np.arange(low, int(days.max()) + 1)
    months = span.astype("datetime64[D]").astype("datetime64[M]")
    of_month = (span - months.astype("datetime64[D]").astype(np.int64)).astype(np.uint32)
    return months.astype(np.int64)[days - low], of_month[days - low]
