"""Which months are trained on, validated on and tested on."""

import re
from dataclasses import dataclass

import numpy as np

from lightning_cnn.errors import UserError, check

TEST_MONTHS = 12  # where nothing else is said: the last ones of the data
Period = tuple[int, int]  # first and last month, both included, as months since 1970-01


def parse_month(name: str, text: str | None) -> int | None:
    """Months since 1970-01 of a month such as `2010-01`.

    Args:
        name: Of the option, for the message.
        text: What was given.

    Raises:
        UserError: If it is no month.
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise UserError(f"`data.{name}` {text}: expected a month such as 2010-01")
    return int(np.datetime64(text, "M").astype(np.int64))


def month_name(month: int) -> str:
    """A month such as `2010-01`."""
    return str(np.datetime64(month, "M"))


def month_span(low: int, high: int) -> str:
    """Months from one to another, in words."""
    return month_name(low) if low == high else f"{month_name(low)} to {month_name(high)}"


def years_between(start: str | None, end: str | None) -> list[int]:
    """All years from one month to another.

    Raises:
        UserError: If one of the months was not given.
    """
    if start is None or end is None:
        raise UserError("`data.year_dummies` true needs `data.train_start` and `data.test_end`, such as 2010-01")
    return list(range(int(start[:4]), int(end[:4]) + 1))


@dataclass(frozen=True)
class Periods:
    """What a user said about the months of outcome; months since 1970-01, None where nothing was said.

    Attributes:
        train_start: First month of training.
        train_end: Last month of training, validation included.
        test_start: First month of the test.
        test_end: Last month of the test.
        val_months: How many of the training months, the last ones, are for validation.
        embargo: Months left out between training and validation, and before the test.
        validate_on_test: Whether the test months are the validation, too.

    Raises:
        UserError: If they contradict each other.
    """

    train_start: int | None
    train_end: int | None
    test_start: int | None
    test_end: int | None
    val_months: int
    embargo: int
    validate_on_test: bool

    def __post_init__(self) -> None:
        """Looks for contradictions that need no data."""
        check("data.val_months", self.val_months, least=1)
        check("data.embargo", self.embargo, least=0)
        self._ordered("train_start", "train_end")
        self._ordered("test_start", "test_end")
        if self.train_end is not None and self.test_start is not None and self.test_start <= self.train_end:
            raise UserError(
                f"`data.test_start` {month_name(self.test_start)} does not lie after `data.train_end` "
                f"{month_name(self.train_end)}: the test must follow the training"
            )

    def _ordered(self, first: str, last: str) -> None:
        low, high = getattr(self, first), getattr(self, last)
        if low is not None and high is not None and high < low:
            raise UserError(f"`data.{last}` {month_name(high)} lies before `data.{first}` {month_name(low)}: swap them")

    def parts(self, first: int, last: int, window_months: int) -> dict[str, Period]:
        """The months of `train`, `val` and `test`.

        Args:
            first: First month with prices.
            last: Last month that can be an outcome.
            window_months: Months that a window reaches back.

        Raises:
            UserError: If the prices don't reach so far, or no month is left for a part.
        """
        for name in ("train_start", "train_end", "test_start", "test_end"):
            month = getattr(self, name)
            if month is not None and not first <= month <= last:
                raise UserError(
                    f"`data.{name}` {month_name(month)} lies outside the prices, which go from {month_name(first)} "
                    f"to {month_name(last)}"
                )
        earliest = first + window_months + 1  # the first month has no return
        if earliest > last:
            raise UserError(
                f"{last + 1 - first} months of prices ({month_name(first)} to {month_name(last)}) are too few for "
                f"windows of {window_months}, which need {window_months + 2}; add prices, or decrease `data.lags`"
            )
        test_end = last if self.test_end is None else self.test_end
        test_start = test_end + 1 - TEST_MONTHS if self.test_start is None else self.test_start
        if self.train_end is not None and self.test_start is None:
            test_start = max(test_start, self.train_end + 1)
        train_start = max(earliest, earliest if self.train_start is None else self.train_start)
        end = test_start - 1 - self.embargo
        end = end if self.train_end is None else min(end, self.train_end)
        if self.validate_on_test:
            val = (test_start, test_end)
        else:
            val = (end + 1 - self.val_months, end)
            end = val[0] - 1 - self.embargo
        if end < train_start:
            raise UserError(
                f"no month is left for training: the first with a window of {window_months} months is "
                f"{month_name(train_start)}, and {self.val_months} months of validation, an embargo of {self.embargo} "
                f"and a test from {month_name(test_start)} leave those up to {month_name(end)}; choose other months"
            )
        if test_start > test_end:
            raise UserError(f"no month is left for the test after `data.train_end` {month_name(test_start - 1)}")
        return {"train": (train_start, end), "val": val, "test": (test_start, test_end)}
