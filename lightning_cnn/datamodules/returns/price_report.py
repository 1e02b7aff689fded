"""What was found in a price file, and what was done about it: one description, printed, stored, and shown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

SHOWN = 5  # tickers named in a line


@dataclass
class PriceReport:
    """What was found in a price file, and what was done about it; see `read_prices`.

    Attributes:
        facts: Its layout, its dates, what was taken, ..., by name, in words.
        warnings: What a user should know, such as prices that are not adjusted.
        given: Prices in the file, missing ones included.
        missing: Prices that are no number.
        nonpositive: Prices of zero or below that count as missing.
        duplicates: Prices for a ticker and day that had one.
        unsorted: Rows of a wide file, or prices of a long one, that come after a later date of the same ticker.
        empty: Tickers without any price.
        unchanged: Tickers with one price in all their months.
        gaps: Months without a price between the first and the last one of a ticker.
        stopped: Tickers whose prices end before the last month.
        unfinished: Whether the last month is not over.
        jumps: Months in which a price grows more than tenfold, or falls below a tenth.
        jumping: The tickers that do so, those with most of such months first.
        bankrupt: Tickers whose prices are 0 from some day to their last row.
        splits: Splits that prices seem not to be adjusted for, each with its ticker, day and ratio.
        mistakes: Cells and rows that can't be used, by what is wrong with them.
        by_ticker: How often each rule met each ticker.
        skipped_files: Files of a folder that were not read, and why.
    """

    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
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
    bankrupt: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    mistakes: Counter[str] = field(default_factory=Counter)
    by_ticker: dict[str, Counter[str]] = field(default_factory=dict)
    skipped_files: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[tuple[str, int, str]]:
        """Name and count of each rule, and what was done."""
        return [
            ("prices", self.given, "in the file"),
            ("missing", self.missing, "skipped"),
            ("zero or negative", self.nonpositive, f"skipped{self._most('zero', 'negative')}"),
            *[(name, count, f"skipped{self._most(name)}") for name, count in self.mistakes.items()],
            ("duplicates", self.duplicates, "replaced by the later one in the file"),
            ("unsorted", self.unsorted, "put in order"),
            ("gaps", self.gaps, "months without a price inside a history; no window reaches over them"),
            ("empty tickers", self.empty, f"dropped{self._most('empty')}"),
            ("bankrupt tickers", len(self.bankrupt), f"with prices of 0 to the last row: {named(self.bankrupt)}"),
            ("stopped tickers", self.stopped, "with windows that end with their prices"),
            ("unchanged tickers", self.unchanged, "skipped while their price never changes"),
            ("splits", len(self.splits), f"that prices seem not adjusted for: {named(self.splits)}"),
            ("jumps", self.jumps, f"tenfold within a month; wrong prices? {named(self.jumping)}"),
            ("unfinished month", self.unfinished, "skipped: it is the one to predict"),
        ]

    def frame(self) -> pd.DataFrame:
        """The description: a row for each fact, warning and rule that applied, with the columns `item` and `value`."""
        rows = [*self.facts.items(), *[("warning", text) for text in self.warnings]]
        rows += [(name, f"{count:,} {done}") for name, count, done in self.lines() if count]
        return pd.DataFrame(rows, columns=["item", "value"])

    def text(self) -> list[str]:
        """The facts and warnings as lines."""
        lines = [f"  {name:<20}{value}" for name, value in self.facts.items()]
        return [*lines, *[f"  {'warning':<20}{text}" for text in self.warnings]]

    def count(self, rule: str, tickers: Counter[str]) -> None:
        """Notes how often a rule met each ticker."""
        if tickers:
            self.by_ticker.setdefault(rule, Counter()).update(tickers)

    def _most(self, *rules: str) -> str:
        found: Counter[str] = sum((self.by_ticker.get(rule, Counter()) for rule in rules), Counter())
        names = [name if count == 1 else f"{name} ({count:,})" for name, count in found.most_common()]
        return f": {named(names)}" if names else ""


def named(tickers: Sequence[str]) -> str:
    """The first of some tickers, and how many more there are."""
    more = len(tickers) - SHOWN
    return ", ".join(tickers[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
