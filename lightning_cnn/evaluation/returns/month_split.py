"""Walk-forward splits: months of training and months of test."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_cnn.errors import UserError, check

Months = NDArray[np.datetime64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """The months of outcome of one training and its test, each first and last month included.

    Attributes:
        train_start: First month of training.
        train_end: Last month of training; validation is taken from the months up to it.
        test_start: First month of the test.
        test_end: Last month of the test.
    """

    train_start: np.datetime64
    train_end: np.datetime64
    test_start: np.datetime64
    test_end: np.datetime64

    @property
    def name(self) -> str:
        """The months of the test, as in `2006-01_2006-12`."""
        return f"{self.test_start}_{self.test_end}"


class MonthSplit:
    """A splitter in scikit-learn's form: training months, a gap, test months, and on to the next test months.

    Every test month belongs to one fold, and training always precedes it. It can be passed to scikit-learn with the
    month of each row as `groups`: `cross_val_score(model, X, y, groups=months, cv=MonthSplit())`.

    Args:
        scheme: `expanding` trains on all months before the gap, `rolling` on the last `train_months` of them.
        test_months: Months of each test; the last fold has the remaining months.
        train_months: Months of each training; the minimum for expanding windows.
        embargo: Months purged between training and test (Lopez de Prado 2018, chapter 7; scikit-learn's `gap`).
        first_test: First month of the first test, `YYYY-MM`; default the first with `train_months` before it.
        last_test: Last month of the last test; default the last month of the data.

    Raises:
        UserError: If a number or a month is invalid.
    """

    def __init__(
        self,
        scheme: Literal["expanding", "rolling"] = "expanding",
        test_months: int = 12,
        train_months: int = 60,
        embargo: int = 1,
        first_test: str | None = None,
        last_test: str | None = None,
    ) -> None:
        check("test_months", test_months, least=1)
        check("train_months", train_months, least=1)
        check("embargo", embargo, least=0)
        self.scheme = scheme
        self.test_months = test_months
        self.train_months = train_months
        self.embargo = embargo
        self.first_test = _month("first_test", first_test)
        self.last_test = _month("last_test", last_test)

    def folds(self, months: ArrayLike) -> list[Fold]:
        """The folds of some months of outcome.

        Args:
            months: The months, in any order, each once or more; `datetime64` or texts `YYYY-MM`.

        Raises:
            UserError: If they are too few for one fold.
        """
        known = np.unique(np.asarray(months, dtype="datetime64[M]"))
        if not len(known):
            raise UserError("there are no months")
        first, last = known[0], known[-1]
        start = first + self.train_months + self.embargo if self.first_test is None else self.first_test
        end = last if self.last_test is None else min(self.last_test, last)
        before = int((start - self.embargo - first).astype(int))
        there = f"there are outcomes from {first} to {last}, {len(known)} months"
        if before < self.train_months:
            fewer = f"`train_months` {before}" if before > 0 else "an earlier start of the data"
            raise UserError(
                f"`first_test` {start} leaves {max(0, before)} months of training, `train_months` requires "
                f"{self.train_months} ({there}): use a later `first_test`, or {fewer}"
            )
        if start > end:
            raise UserError(
                f"too few months for one fold: {there}, a test would begin in {start} and end in {end}: "
                "take fewer `train_months`, or other `first_test` and `last_test`"
            )
        starts = np.arange(start, end + 1, self.test_months)
        return [
            Fold(
                train_start=first if self.scheme == "expanding" else start - self.embargo - self.train_months,
                train_end=start - self.embargo - 1,
                test_start=start,
                test_end=min(start + self.test_months - 1, end),
            )
            for start in starts
        ]

    def split(self, X: Any, y: Any = None, groups: ArrayLike | None = None) -> Iterator[tuple[Indices, Indices]]:
        """The rows of training and test, fold by fold.

        Args:
            X: Ignored.
            y: Ignored.
            groups: Month of outcome of each row, `datetime64` or texts `YYYY-MM`.

        Raises:
            UserError: If there are no months, or too few.
        """
        months = _groups(groups)
        for fold in self.folds(months):
            train = (months >= fold.train_start) & (months <= fold.train_end)
            test = (months >= fold.test_start) & (months <= fold.test_end)
            yield np.flatnonzero(train), np.flatnonzero(test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: ArrayLike | None = None) -> int:
        """Number of folds; the arguments are those of `split`."""
        return len(self.folds(_groups(groups)))


def check_apart(trained: ArrayLike, tested: ArrayLike, window: int, embargo: int) -> None:
    """Checks that training and test do not overlap, and that the embargo is kept.

    Args:
        trained: Months of outcome of the rows of training and validation.
        tested: Months of outcome of the rows of the test.
        window: Number of months in a window, without its outcome.
        embargo: Number of months between training and test.

    Raises:
        RuntimeError: If a window of training, including its outcome, contains a month of outcome of the test, or the
            gap is too small. This would be a bug, not a mistake of the user.
    """
    train, test = (np.unique(np.asarray(part, dtype="datetime64[M]")) for part in (trained, tested))
    seen = np.unique(train[:, None] - np.arange(window + 1))
    if len(shared := np.intersect1d(seen, test)):
        raise RuntimeError(f"leak: {len(shared)} months of outcome of the test, {shared[0]} first, are in training")
    if len(train) and len(test) and test[0] - train[-1] <= np.timedelta64(embargo, "M"):
        raise RuntimeError(f"leak: training ends in {train[-1]}, the test begins in {test[0]}, {embargo} months apart")


def _month(name: str, text: str | None) -> np.datetime64 | None:
    try:
        return None if text is None else np.datetime64(text, "M")
    except ValueError:
        raise UserError(f"`{name}` {text}: it must be a month such as 2006-01") from None


def _groups(groups: ArrayLike | None) -> Months:
    if groups is None:
        raise UserError("MonthSplit needs groups=months, the month of outcome of each row")
    return np.asarray(groups, dtype="datetime64[M]")
