"""Windows of monthly returns: which there are, how they are clipped and scaled, and whole batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from lightning_cnn.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
ReturnBatch = tuple[Tensor, Tensor, Tensor]

MONTHS = 12
JUMP = 10  # times that a price grows or falls in a month, above which it may be wrong
IN_MEMORY = 1 << 30  # bytes of finished windows that are kept; above, each batch is cut out of the series anew
UNCHANGED = 6  # months at least, after which a price that does not change is no price


def change(levels: Floats, fill_forward: bool = False) -> Floats:
    """The relative change of each month from the month before.

    Args:
        levels: Such as month-end closes, `(months, tickers)`, NaN where there is none.
        fill_forward: Whether a missing level is taken from the month before it, as pandas' `pct_change` long did: a
            stock that no longer trades then has returns of zero.

    Returns:
        The same shape; NaN in the first month, and where one of the two levels is missing.
    """
    table = pd.DataFrame(levels).ffill() if fill_forward else pd.DataFrame(levels)
    changes: Floats = table.pct_change(fill_method=None).to_numpy()
    return changes


def past_all(flags: Flags, count: int) -> Flags:
    """Whether a flag was set in each of the `count` months before a month.

    Args:
        flags: `(months, tickers)`.
        count: Number of months.

    Returns:
        `(months + 1, tickers)`; the last row is the month after the data.
    """
    total = past_sum(flags)
    found = np.zeros(total.shape, dtype=bool)
    if count < len(total):
        found[count:] = total[count:] - total[:-count] == count
    return found


def unchanged(returns: Floats, window_months: int) -> Flags:
    """Where a price has not changed in a whole window, and for six months at least.

    Args:
        returns: `(months, tickers)`.
        window_months: Months of a window.

    Returns:
        `(months + 1, tickers)`; the last row is the month after the data.
    """
    return past_all(returns == 0, max(window_months, UNCHANGED))


def jumped(returns: Floats, allowed: int) -> Flags:
    """Where a price has already jumped more often than it may: more than tenfold, or below a tenth, in a month.

    Args:
        returns: `(months, tickers)`.
        allowed: How many such months are allowed.

    Returns:
        `(months + 1, tickers)`; a jump counts from the month after it on.
    """
    return np.asarray(past_sum((returns > JUMP - 1) | (returns < 1 / JUMP - 1)) > allowed)


def past_sum(flags: Flags) -> NDArray[np.int32]:
    """How often a flag was set before each row, and the one behind the last."""
    return np.cumsum(np.pad(flags, ((1, 0), (0, 0))), axis=0, dtype=np.int32)


@dataclass(frozen=True)
class Scaling:
    """How each column of the windows is clipped and scaled: measured on some windows, applied to all.

    Attributes:
        low: Lower limits of clipping, `(channels, columns)`.
        high: Upper limits.
        mean: Mean of the clipped values; zero where they are not scaled.
        std: Their standard deviation; one where they are not scaled.
    """

    low: Floats
    high: Floats
    mean: Floats
    std: Floats

    def apply(self, windows: Tensor) -> Tensor:
        """Clipped and scaled windows `(n, channels, columns)`."""
        low, high, mean, std = (torch.from_numpy(part).float() for part in (self.low, self.high, self.mean, self.std))
        return windows.clamp(low, high).sub_(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        return {name: getattr(self, name).tolist() for name in ("low", "high", "mean", "std")}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Scaling":
        """From plain data."""
        return cls(*(np.array(saved[name], dtype=np.float64) for name in ("low", "high", "mean", "std")))


class Windows(Dataset[ReturnBatch]):
    """What a network sees of each stock and month, in memory. An index is a tensor of positions, an item a whole batch.

    Args:
        months: Month of the outcome, as months since 1970-01, `(n,)`.
        tickers: Number of the ticker, `(n,)`.
        outcomes: Return of that month, `(n,)`.
        shape: Channels and columns.
    """

    def __init__(self, months: Integers, tickers: Integers, outcomes: Floats, shape: tuple[int, int]) -> None:
        self.months = torch.from_numpy(months)
        self.tickers = tickers
        self.outcomes = torch.from_numpy(outcomes).float()
        self.shape = shape
        self._scaling: Scaling | None = None
        self._finished: Tensor | None = None

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.months)

    def __getitem__(self, index: Tensor) -> ReturnBatch:
        """Windows float32 `(b, channels, length)`, outcomes float32 `(b,)`, months since 1970-01 int64 `(b,)`."""
        windows = self._cut(index) if self._finished is None else self._finished[index]
        return windows, self.outcomes[index], self.months[index]

    def scale(self, scaling: Scaling) -> None:
        """Sets how the windows are clipped and scaled; keeps the finished windows where they are small."""
        self._scaling, self._finished = scaling, None
        size = self._cut(torch.arange(min(1, len(self)))).nbytes
        if len(self) * size <= IN_MEMORY:
            self._finished = self._cut(torch.arange(len(self)))

    def column(self, channel: int, column: int) -> NDArray[np.float32]:
        """All values of one column before clipping, `(n,)`."""
        raise NotImplementedError

    def _cut(self, index: Tensor) -> Tensor:
        raise NotImplementedError


class ReturnWindows(Windows):
    """Windows of monthly values, the latest first, and with them the calendar month of the outcome.

    The series are kept once, the newest month first, so that a window is a stretch of memory, and all windows together
    are one strided view.

    Args:
        series: float32 `(channels, tickers, months)`, the newest month first.
        last_month: Months since 1970-01 of the newest.
        lags: Months of a window.
        months: Month of the outcome, as months since 1970-01, `(n,)`; at most the one after the newest.
        tickers: Number of the ticker, `(n,)`.
        outcomes: Return of that month, `(n,)`.
        month_dummies: Whether twelve numbers follow the lags in each channel, 1 for the month of the outcome, else 0.
        years: For each of these years a further number, 1 for the year of the outcome, else 0.
    """

    def __init__(
        self,
        series: Tensor,
        last_month: int,
        lags: int,
        months: Integers,
        tickers: Integers,
        outcomes: Floats,
        month_dummies: bool,
        years: Sequence[int] = (),
    ) -> None:
        channels, _, length = series.shape
        super().__init__(months, tickers, outcomes, (channels, lags))
        self._of_year = torch.arange(MONTHS if month_dummies else 0)
        self._years = torch.tensor(years, dtype=torch.int64)
        values = series.view(channels, -1)
        # fewer values than lags are no window
        values = functional.pad(values, (0, max(0, lags - values.shape[1])))
        self._views = values.unfold(1, lags, 1)
        self._starts = torch.from_numpy(tickers * length + last_month + 1 - months)

    def column(self, channel: int, column: int) -> NDArray[np.float32]:
        """All values of one lag, from 0 for the month before the outcome, before clipping, `(n,)`."""
        values: NDArray[np.float32] = self._views[channel, self._starts, column].numpy()
        return values

    def _cut(self, index: Tensor) -> Tensor:
        windows = self._views[:, self._starts[index]].transpose(0, 1)
        if self._scaling is not None:
            windows = self._scaling.apply(windows)
        months = self.months[index, None]
        dummies = torch.cat([months % MONTHS == self._of_year, months // MONTHS + 1970 == self._years], 1).float()
        return torch.cat([windows, dummies[:, None].expand(-1, windows.shape[1], -1)], 2)


def measure(parts: Sequence[Windows], clip: float, scale: bool) -> Scaling:
    """Measures the limits of clipping, and mean and deviation of what is clipped, column by column.

    Args:
        parts: The windows that may be looked at.
        clip: Share of the values that is clipped at each end; 0 clips nothing.
        scale: Whether values are scaled, or only clipped.

    Raises:
        UserError: If there are no windows.
    """
    if not sum(map(len, parts)):
        raise UserError("there are no training windows to measure clipping and scaling on: choose other months")
    channels, columns = parts[0].shape
    found = np.empty((4, channels, columns))
    for channel in range(channels):
        for column in range(columns):
            values = np.concatenate([part.column(channel, column) for part in parts]).astype(np.float64)
            low, high = np.quantile(values, [clip, 1 - clip]) if clip else (-np.inf, np.inf)
            values = values.clip(low, high)
            std = values.std()
            found[:, channel, column] = low, high, *((values.mean(), std if std > 0 else 1.0) if scale else (0.0, 1.0))
    return Scaling(*found)
