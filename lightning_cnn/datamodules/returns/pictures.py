"""Pictures of 15 technical indicators by 15 periods, computed from daily closes.

After CNN-TA (Sezer and Ozbayoglu 2018, section 3): a row an indicator, a column a period of 6 to 20 days. The paper's
RSI, Williams %R, simple, exponential, weighted, Hull and triple exponential moving average, CCI, CMO, MACD, PPO, ROC
and PSI are computed from closes alone, which then stand for highs and lows, too. Its CMFI and DMI need volumes, highs
and lows; in their places stand the position in Bollinger's band and the deviation of the daily returns.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_cnn.datamodules.returns.windows import Flags, Floats, Integers, Windows, past_sum

INDICATORS = (
    "RSI", "Williams %R", "SMA", "EMA", "WMA", "HMA", "TEMA", "CCI", "CMO", "MACD", "PPO", "ROC", "Bollinger",
    "volatility", "PSI",
)  # fmt: skip
PERIODS = tuple(range(6, 21))
SIDE = len(PERIODS)
DAYS = 90  # of closes that a picture looks at; the longest average has given 99 % of its weights by then
WINDOW_MONTHS = 5  # that so many days reach back at most
FILLED = 5  # days in a row without a price, which the last price stands for
CHUNK = 1 << 14  # windows computed at once


def pictures(closes: Floats) -> NDArray[np.float32]:
    """The picture of each window of closes.

    Averages are shares of the last close, minus 1: nothing depends on the level of the price. `u` and `d` are the daily
    rises and falls. RSI: u / (u + d), smoothed with 1 / n (Wilder). CMO: (u - d) / (u + d) over n days. Williams: how
    far below the highest of n closes, as a share of their range. CCI: distance to the average, over .015 mean
    deviations. MACD: (EMA 12 - EMA 26) minus its EMA n. PPO: EMA n / EMA 2n - 1. ROC: return over n days. Bollinger:
    distance to the average, over 2 deviations. Volatility: deviation of n daily returns. PSI: share of rises in n days.

    Args:
        closes: `(n, DAYS)`, the latest last.

    Returns:
        `(n, 15, 15)`: indicators in the order of `INDICATORS`, by periods of 6 to 20 days.
    """
    now = closes[:, -1:]
    relative = closes / now
    steps = np.diff(closes, axis=1)
    rises, falls, daily = steps.clip(min=0) / now, -steps.clip(max=0) / now, steps / closes[:, :-1]
    weights = _weights()
    average = {name: relative @ weight for name, weight in weights.items()}
    up, down = rises @ weights["WILDER"][1:], falls @ weights["WILDER"][1:]
    newest_first = relative[:, ::-1]
    highest = np.maximum.accumulate(newest_first, axis=1)
    lowest = np.minimum.accumulate(newest_first, axis=1)
    found = np.empty((len(closes), SIDE, SIDE), dtype=np.float32)
    found[:, 0] = _share(up, up + down)
    for row, name in enumerate(("SMA", "EMA", "WMA", "HMA", "TEMA"), start=2):
        found[:, row] = average[name] - 1
    found[:, 9] = average["MACD"]
    found[:, 10] = average["EMA"] / average["EMA2"] - 1
    for place, n in enumerate(PERIODS):
        last, mean = relative[:, -n:], average["SMA"][:, place]
        n_up, n_down = rises[:, -n:].sum(1), falls[:, -n:].sum(1)
        high, low = highest[:, n - 1], lowest[:, n - 1]
        found[:, 1, place] = _share(high - 1, high - low)
        found[:, 7, place] = _share(1 - mean, 0.015 * np.abs(last - mean[:, None]).mean(1))
        found[:, 8, place] = _share(n_up - n_down, n_up + n_down)
        found[:, 11, place] = 1 / relative[:, -1 - n] - 1
        found[:, 12, place] = _share(1 - mean, 2 * last.std(1))
        found[:, 13, place] = daily[:, -n:].std(1)
        found[:, 14, place] = (steps[:, -n:] > 0).mean(1)
    return found


def _share(part: Floats, whole: Floats) -> Floats:
    """The quotient; zero where there is nothing to divide by, as in a price that does not move."""
    small = whole < 1e-12
    shares: Floats = np.where(small, 0, part / np.where(small, 1, whole))
    return shares


@lru_cache
def _weights() -> dict[str, Floats]:
    """Weights of each day in averages, `(DAYS, periods)`, the latest last."""
    kernels = [_kernels(n) for n in PERIODS]
    return {name: np.stack([kernel[name][::-1] for kernel in kernels], axis=1) for name in kernels[0]}


def _kernels(n: int) -> dict[str, Floats]:
    """Weights of averages over n days, `(DAYS,)`, the latest first."""
    whole, half, root = (_unit(np.arange(days, 0, -1, dtype=np.float64)) for days in (n, n // 2, round(n**0.5)))
    ema, fast, slow = (_exponential(2 / (days + 1)) for days in (n, 12, 26))
    twice = _after(ema, ema)
    return {
        "SMA": _unit(np.ones(n)),
        "EMA": ema,
        "EMA2": _exponential(2 / (2 * n + 1)),
        "WILDER": _exponential(1 / n),
        "WMA": whole,
        "HMA": _after(2 * half - whole, root),  # Hull: the average over the root of n days of 2 * half's - whole's
        "TEMA": 3 * ema - 3 * twice + _after(twice, ema),
        "MACD": (fast - slow) - (_after(fast, ema) - _after(slow, ema)),
    }


def _exponential(alpha: float) -> Floats:
    return _unit(np.power(1 - alpha, np.arange(DAYS, dtype=np.float64)))


def _after(one: Floats, other: Floats) -> Floats:
    """The weights of one average of another, cut off after DAYS."""
    return _unit(np.convolve(one, other)[:DAYS])


def _unit(weights: Floats) -> Floats:
    padded = np.zeros(DAYS)
    padded[: len(weights)] = weights / weights.sum()
    return padded


class DailyCloses:
    """Closes of all days, and where the months end.

    Args:
        days: datetime64[D], `(days,)`, ascending.
        closes: `(days, tickers)`, NaN where there is none. A missing one takes the place of the last one, for up to 5
            days in a row.
        first_month: First month, as months since 1970-01.
        months: How many there are.
    """

    def __init__(self, days: NDArray[np.datetime64], closes: Floats, first_month: int, months: int) -> None:
        self._closes = pd.DataFrame(closes).ffill(limit=FILLED).to_numpy()
        # the number of days up to the end of the month before a month
        borders = np.arange(first_month, first_month + months + 1).astype("datetime64[M]").astype("datetime64[D]")
        self._ends = np.searchsorted(days, borders)
        self._first_month = first_month

    def whole(self) -> Flags:
        """Whether all days before a month have a close, `(months + 1, tickers)`."""
        known = past_sum(np.isfinite(self._closes))
        flags: Flags = known[self._ends] - known[np.maximum(self._ends - DAYS, 0)] == DAYS
        return flags

    def windows(self, months: Integers, tickers: Integers) -> Iterator[Floats]:
        """The closes before each month, `(up to CHUNK, DAYS)` at once, the latest last."""
        past = np.arange(-DAYS, 0)
        for start in range(0, len(months), CHUNK):
            chunk = slice(start, start + CHUNK)
            ends = self._ends[months[chunk] - self._first_month]
            yield self._closes[ends[:, None] + past, tickers[chunk, None]]


class ReturnPictures(Windows):
    """Pictures of the days before each month.

    Args:
        closes: The closes of all days.
        months: Month of the outcome, as months since 1970-01, `(n,)`.
        tickers: Number of the ticker, `(n,)`.
        outcomes: Return of that month, `(n,)`.
    """

    def __init__(self, closes: DailyCloses, months: Integers, tickers: Integers, outcomes: Floats) -> None:
        super().__init__(months, tickers, outcomes, (1, SIDE * SIDE))
        self._raw = torch.empty(len(months), SIDE * SIDE)
        done = 0
        for window in closes.windows(months, tickers):
            self._raw[done : done + len(window)] = torch.from_numpy(pictures(window)).flatten(1)
            done += len(window)

    def column(self, channel: int, column: int) -> NDArray[np.float32]:
        """All values of one pixel before clipping, `(n,)`."""
        values: NDArray[np.float32] = self._raw[:, column].numpy()
        return values

    def _cut(self, index: Tensor) -> Tensor:
        flat = self._raw[index, None]
        return (flat if self._scaling is None else self._scaling.apply(flat)).view(-1, 1, SIDE, SIDE)
