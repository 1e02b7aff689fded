"""Month-end prices, and the files that they are read from, each once where many need it."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
from numpy.typing import NDArray

from lightning_cnn.datamodules.returns.file_options import NOTHING_SAID, FileOptions
from lightning_cnn.datamodules.returns.price_report import PriceReport
from lightning_cnn.datamodules.returns.price_table import Floats
from lightning_cnn.datamodules.returns.windows import change
from lightning_cnn.errors import UserError, did_you_mean


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
        stale: Where a ticker can't be bought at the end of a month: it is bankrupt, or, with daily prices, its last
            price is more than 7 days older than that of the others, `(months, tickers)`.
        returns: Of a file of returns: those of the months, `(months, tickers)`; `closes` are then what 1 became.
    """

    months: NDArray[Any]
    tickers: list[str]
    closes: Floats
    daily: bool = False
    report: PriceReport = field(default_factory=PriceReport)
    days: NDArray[Any] | None = None
    day_closes: Floats | None = None
    stale: NDArray[np.bool_] | None = None
    returns: Floats | None = None

    def changes(self, fill_forward: bool = False) -> Floats:
        """The return of each month, `(months, tickers)`, NaN where there is none.

        Args:
            fill_forward: Whether a missing price is taken from the month before it: a stock that no longer trades then
                has returns of zero.
        """
        if self.returns is None:
            return change(self.closes, fill_forward)
        begun = np.logical_or.accumulate(np.isfinite(self.returns), axis=0)
        return np.where(begun & np.isnan(self.returns), 0.0, self.returns) if fill_forward else self.returns

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
        returns = None if self.returns is None else self.returns[:, kept]
        closes = self.closes[:, kept]
        return replace(self, tickers=tickers, closes=closes, day_closes=days, stale=stale, returns=returns)


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
        files = [path, *sorted(Path(path).rglob("*"))] if os.path.isdir(path) else [path]
        facts = [(file.st_ino, file.st_size, file.st_mtime_ns) for file in map(os.stat, files)]
        key = Path(path).resolve(), tuple(facts), options, tuple(named.items())
        if key not in _kept[-1]:
            _kept[-1][key] = read(path, *options, **named)
        return _kept[-1][key]

    return kept


@_once
def read_prices(
    path: str | Path,
    options: FileOptions = NOTHING_SAID,
    keep_days: bool = False,
    positive: bool = True,
    mean: bool = False,
) -> Prices:
    """Reads a price file of any format and layout as month-end prices.

    What may be wrong in a file is handled by these rules, and counted in `Prices.report`, by ticker where one is meant:

    - A month's price is the last one of that month, whatever the order of the rows. Returns of days are compounded.
    - Of several prices for a ticker and day the later one in the file counts; so with two columns of one name.
    - Missing prices, and prices of zero or below, are left out. Prices that are 0 from some day to the last row of a
      ticker are a bankruptcy: a return of -100 %, after which the ticker ends. In CRSP's files a negative price is the
      mean of bid and ask, and zero says that there is none.
    - A month without a price stays without one, also where no ticker has one: no window reaches over such a gap. A
      ticker that stops trading has no prices from then on, and its windows end there.
    - The last month counts as finished where the file has later dates, or its last date is followed by at most two
      weekdays; where a file has one date a month, also where it lies where the other dates do.
    - A ticker without any price is dropped.
    - A price that never changes is kept, because only later prices could tell; `MonthlyReturns` leaves out windows in
      which the price does not change.
    - A month in which a price grows more than tenfold, or falls below a tenth, is kept, because to leave out returns
      by their size is to choose results; but the tickers are named. `MonthlyReturns` leaves out all windows that come
      after such a jump and the way back. Jumps by the ratio of a split are named, too.
    - A cell that is no number, an infinite price, a row without a date or ticker is skipped. Of a file with more than
      one such in twenty nothing is read.

    Args:
        path: Parquet, CSV (also packed), Feather or Excel; or a folder of such files: one for each ticker, or parts of
            one table, with names such as `ticker=AAPL` as columns.
        options: What is not to be recognized.
        keep_days: Whether to keep the prices of all days, too.
        positive: Whether only positive values count; not so for series other than prices.
        mean: Whether to take the mean of each month instead of its last value.

    Raises:
        UserError: If the file is missing or damaged, has no dates or no prices, or can be read in two ways.
    """
    from lightning_cnn.datamodules.returns.price_reading import read  # imports pyarrow

    return read(Path(path), options, keep_days, positive, mean)
