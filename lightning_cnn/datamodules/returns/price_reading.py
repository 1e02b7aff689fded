"""Reads a price file into month-end prices, and notes what it finds."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_cnn.datamodules.returns.description import count_gaps_and_jumps, describe
from lightning_cnn.datamodules.returns.file_options import FileOptions
from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.price_report import PriceReport, named
from lightning_cnn.datamodules.returns.price_source import PriceSource
from lightning_cnn.datamodules.returns.price_table import Floats, Integers, PriceTable
from lightning_cnn.datamodules.returns.splits import SplitFinder, in_words
from lightning_cnn.datamodules.returns.table_files import UnreadableCellError
from lightning_cnn.dates import NEVER
from lightning_cnn.errors import UserError

DAILY = 3  # different days in a month, above which prices are those of days
STALE = 7  # days by which the last price of a ticker may be older than that of the others
LEFT = 2  # weekdays after the last date of a month that is finished
MISTAKES = 0.05  # share of cells and rows that can't be used, above which a file is refused
FRACTIONS = "give fractions (0.01 for one per cent), not per cent or prices"
ZEROS = 0.1  # share of the tickers whose prices end at 0, above which these may not be bankruptcies


def read(path: Path, options: FileOptions, keep_days: bool, positive: bool, mean: bool) -> Prices:
    """Reads a file; see `read_prices`.

    Raises:
        UserError: If it can't be read.
    """
    source = PriceSource(path, options)
    try:
        reading = _Reading(source, options, keep_days, positive, mean)
    except UnreadableCellError:
        source.lenient = True
        reading = _Reading(source, options, keep_days, positive, mean)
    return reading.prices()


class _Reading:
    """One pass over a file."""

    def __init__(self, source: PriceSource, options: FileOptions, keep_days: bool, positive: bool, mean: bool) -> None:
        self.source, self.options = source, options
        self.returns = source.layout.field.kind == "returns"
        if self.returns and keep_days:
            raise UserError("`data.picture` true requires daily prices, but the file has returns: remove it")
        self.report = PriceReport()
        self.monthly = PriceTable("M", "product" if self.returns else "mean" if mean else "last")
        self.daily = PriceTable("D") if keep_days else None
        self.splits = SplitFinder() if positive and not self.returns else None
        self.positive = positive and not self.returns
        self.zeros: list[tuple[Integers, Integers]] = []
        self._met: dict[str, Counter[int]] = {}
        for days, codes, prices, rows in source.cells():
            self._add(days, codes, prices, rows)

    def _add(self, days: Integers, codes: Integers, prices: Floats, rows: Integers) -> None:
        self.report.given += len(prices)
        good = prices > 0 if self.positive else np.isfinite(prices)
        if len(prices) and np.fmax.reduce(prices) == np.inf:
            good &= prices < np.inf
        if not good.all():
            bad = prices[~good]
            missing = int(np.isnan(bad).sum())
            self.report.missing += missing
            if missing < len(bad):
                self._sort_out(days[~good], codes[~good], bad)
            days, codes, prices, rows = days[good], codes[good], prices[good], rows[good]
        self.monthly.add(days, codes, prices, rows)
        if self.daily is not None:
            self.daily.add(days, codes, prices, rows)
        if self.splits is not None:
            self.splits.add(days, codes, prices)

    def _sort_out(self, days: Integers, codes: Integers, prices: Floats) -> None:
        """Notes prices that can't be used."""
        self._note("infinite", codes[np.isinf(prices)])
        if self.positive:
            self._note("negative", codes[(prices < 0) & (prices > -np.inf)])
            self.zeros.append((days[prices == 0], codes[prices == 0]))

    def _note(self, rule: str, codes: Integers) -> None:
        if len(codes):
            different, counts = np.unique(codes, return_counts=True)
            met = self._met.setdefault(rule, Counter())
            met.update(dict(zip(different.tolist(), counts.tolist(), strict=True)))

    def prices(self) -> Prices:
        """The prices, cleaned and described."""
        source, report = self.source, self.report
        tickers = source.tickers
        ended = self._bankrupt() if self.zeros else {}
        report.unsorted, report.duplicates = source.unsorted, self.monthly.duplicates()
        for rule, counter in self._met.items():
            report.count(rule, Counter({tickers[code]: count for code, count in counter.items()}))
        report.nonpositive = sum(self._met.get("zero", {}).values()) + sum(self._met.get("negative", {}).values())
        months, closes = self.monthly.result(len(tickers))
        if not len(months):
            self._check_mistakes(but="negative")
            raise UserError(f"{source.path}: none of its {len(tickers)} tickers has a price: use another file")
        self._check_mistakes()
        is_daily = bool(np.median(np.bitwise_count(self.monthly.days_of_months())) > DAILY)
        finished, why = self._finished(months, is_daily)
        last = self.monthly.last_days(len(tickers)) if len(tickers) else np.zeros((0, 0))
        if not finished:
            months, closes, last, report.unfinished = months[:-1], closes[:-1], last[:-1], 1
        known: NDArray[np.bool_] = np.asarray(np.isfinite(closes).any(0))
        kept = [ticker for ticker, has_any in zip(tickers, known, strict=True) if has_any]
        stale = (last > 0) & (last < last.max(1, keepdims=True) - STALE) if is_daily else np.zeros(closes.shape, bool)
        for code, month in ended.items():
            if month < months[-1] + 1:
                stale[(month - months[0]).astype(int), code] = True
        found = Prices(months, kept, closes[:, known], is_daily, report)
        if is_daily or stale.any():
            found.stale = stale[:, known]
        if self.daily is not None:
            all_days, day_closes = self.daily.result(len(tickers))
            traded = np.isfinite(day_closes).any(1)
            found.days, found.day_closes = all_days[traded], day_closes[traded][:, known]
        if self.returns:
            _as_returns(found)
        report.empty, report.skipped_files = len(tickers) - len(kept), source.skipped
        report.count("empty", Counter(ticker for ticker, has_any in zip(tickers, known, strict=True) if not has_any))
        if self.splits is not None:
            each = sorted(self.splits.found, key=lambda one: (one[1], one[0]))
            days = [str(np.datetime64(day, "D")) for _, day, _ in each]
            about = "" if is_daily else "about "
            report.splits = [
                f"{tickers[code]} {day} ({about}{in_words(ratio)})"
                for (code, _, ratio), day in zip(each, days, strict=True)
            ]
        count_gaps_and_jumps(found)
        describe(found, source, why, self.positive)
        return found

    def _bankrupt(self) -> dict[int, Any]:
        """Notes zeros; prices that are 0 to the last row get the last return. Returns the month of each such ticker."""
        days, codes = (np.concatenate(part) for part in zip(*self.zeros, strict=True))
        if not len(days):
            return {}
        tickers = self.source.tickers
        day, price = self.monthly.latest(len(tickers))
        at_the_end = (days > day[codes]) & (day[codes] != NEVER) & (not self.source.layout.field.signed)
        self._note("zero", codes[~at_the_end])
        gone = np.unique(codes[at_the_end])
        traded = int((day != NEVER).sum())
        change = self.options.delisting_return
        if change is None and len(gone) > max(4, ZEROS * traded):
            raise UserError(
                f"{self.source.path}: the prices of {len(gone):,} of {traded:,} tickers are 0 to the end, such as "
                f"{named([tickers[code] for code in gone])}: set `data.delisting_return` -1 if these are bankrupt, or "
                "0 if 0 says that there is no price"
            )
        change = -1.0 if change is None else change
        ended: dict[int, Any] = {}
        self.report.bankrupt = [tickers[code] for code in gone]
        for code in gone.tolist() if change != 0 else []:
            zero = np.array([days[at_the_end & (codes == code)].min()])
            for table in (self.monthly, self.daily):
                if table is not None:
                    table.add(zero, np.array([code]), np.array([price[code] * (1 + change)]), np.array([0]))
            ended[code] = zero[0].astype("datetime64[D]").astype("datetime64[M]")
        return ended

    def _check_mistakes(self, but: str = "") -> None:
        """Notes cells and rows that can't be used, and refuses a file that has too many, but for one kind."""
        source, report = self.source, self.report
        report.count("unreadable cells", Counter(source.unreadable))
        found = {
            "unreadable cells": sum(source.unreadable.values()),
            "rows without date": source.undated,
            "rows without ticker": source.nameless,
            "ragged rows": source.ragged,
            "infinite": sum(self._met.get("infinite", {}).values()),
            "below -100 %": source.impossible,
        }
        report.mistakes = Counter({name: count for name, count in found.items() if count})
        rows = max(1, source.rows)
        share = {name: count / (rows if "rows" in name else max(1, report.given)) for name, count in found.items()}
        share["above 100 %"] = source.doubled / max(1, report.given)
        share["negative"] = sum(self._met.get("negative", {}).values()) / max(1, report.given)
        share.pop(but, None)
        worst = max(share, key=share.__getitem__)
        if share[worst] > MISTAKES:
            raise UserError(f"{source.path}: {self._refusal(worst)}")

    def _refusal(self, worst: str) -> str:
        source = self.source
        column = source.table.names[source.layout.date]
        texts = {
            "rows without date": f"not every value of the column {column!r} is a date such as 2017-12-29 "
            f"({source.undated:,} of {source.rows:,} are none): correct it, or name another with `data.date_column`",
            "rows without ticker": f"{source.nameless:,} of {source.rows:,} rows have no ticker: remove them",
            "ragged rows": f"{source.ragged:,} of {source.rows:,} rows have another number of cells than the header: "
            "it can't be read as CSV",
            "below -100 %": f"{source.impossible:,} of {self.report.given:,} returns are below -100 %: {FRACTIONS}",
            "above 100 %": f"{source.doubled:,} of {self.report.given:,} returns are above 100 %: {FRACTIONS}",
            "unreadable cells": f"{sum(source.unreadable.values()):,} of {self.report.given:,} cells hold text, not "
            f"numbers, such as those of {named([*source.unreadable])}: correct them",
        }
        return texts.get(
            worst, f"more than {MISTAKES:.0%} of the prices are {worst}: correct them, or use another file"
        )

    def _finished(self, months: NDArray[Any], is_daily: bool) -> tuple[bool, str]:
        """Whether the last month with prices is over, and why."""
        month, day = months[-1], np.datetime64(self.source.last_day, "D")
        if self.options.last_month is not None:
            return self.options.last_month == "finished" or len(months) < 2, "as you said"
        if day.astype("datetime64[M]") > month:
            return True, "there are later dates"
        ends = (months + 1).astype("datetime64[D]")
        left = int(np.busday_count(day + 1, ends[-1]))
        if left <= LEFT:
            return True, f"its last date is {day}"
        if len(months) < 2:
            return True, "it is the only one"
        if not is_daily:
            last = [int(bits).bit_length() for bits in self.monthly.days_of_months()]
            dates = months.astype("datetime64[D]") + (np.array(last) - 1)
            at_end = np.busday_count(dates + 1, ends) <= LEFT
            others = np.array(last[:-1])
            if at_end[:-1].mean() < 0.5 and others.min() <= last[-1] <= others.max():
                return True, f"its date, {day}, lies where those of the other months do"
        return False, f"its last date is {day}, and {left} weekdays follow"


def _as_returns(prices: Prices) -> None:
    """Turns monthly returns into `returns`, and `closes` into what 1 became.

    With daily returns the first month of a history is not whole: its return is unknown, as with prices. With monthly
    ones a month is put before the first.
    """
    returns = prices.closes
    if prices.daily:
        before = np.concatenate([np.full_like(returns[:1], np.nan), returns[:-1]])
        returns = np.where(np.isnan(before), np.nan, returns)
    else:
        empty = np.full_like(returns[:1], np.nan)
        returns = np.concatenate([empty, returns])
        prices.months = np.concatenate([prices.months[:1] - 1, prices.months])
        if prices.stale is not None:
            prices.stale = np.concatenate([np.zeros_like(prices.stale[:1]), prices.stale])
    known = np.isfinite(returns)
    follows = np.concatenate([known[1:], np.zeros_like(known[:1])])
    levels = np.cumprod(1 + np.where(known, returns, 0), axis=0)
    prices.returns, prices.closes = returns, np.where(known | follows, levels, np.nan)
