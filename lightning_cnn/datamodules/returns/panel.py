"""Returns by month and ticker, further series beside them, and which windows of them are whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.datamodules.returns.pictures import DailyCloses
from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.windows import Flags, Floats, jumped, past_all, unchanged


@dataclass(frozen=True)
class Panel:
    """What windows are cut from; made once, whatever the months of training and test.

    Attributes:
        prices: The prices.
        returns: `(months, tickers)`, NaN where there is none.
        newest_first: The returns and the further series, float32 `(channels, tickers, months)`.
        known: Where all series have a value, `(months, tickers)`.
        whole: Where the window before a month is whole, `(months + 1, tickers)`; the last row is the month after.
        skipped: Number of windows that are not, by the reason.
        days: Daily closes, where pictures are made of them.
        channels: What each further series has, in words.
        blame: The series that most windows are not whole for, in words; empty for none.
    """

    prices: Prices
    returns: Floats
    newest_first: Tensor
    known: Flags
    whole: Flags
    skipped: dict[str, int]
    days: DailyCloses | None
    channels: dict[str, str] = field(default_factory=dict)
    blame: str = ""

    @property
    def first(self) -> int:
        """The first month, since 1970-01."""
        return int(self.prices.months[0].astype(np.int64))

    @property
    def last(self) -> int:
        """The last month, since 1970-01."""
        return self.first + len(self.prices.months) - 1


def make_panel(
    prices: Prices, others: Mapping[str, Floats], window_months: int, max_jumps: int, fill_forward: bool, picture: bool
) -> Panel:
    """Computes the returns, and finds the whole windows.

    A stock counts in a month if it can be bought when the month begins: in training, test and prediction it is skipped
    where it is bankrupt, or where its last price is more than a week older than that of the others. Values that are
    infinite are missing.

    Args:
        prices: The prices.
        others: Further series by name, `(months, tickers)`.
        window_months: Months of a window.
        max_jumps: In how many months a price may jump.
        fill_forward: Whether missing prices are filled with the last one.
        picture: Whether windows are pictures of daily closes.
    """
    returns = prices.changes(fill_forward)
    with np.errstate(over="ignore"):
        series = np.stack([returns, *others.values()]).astype(np.float32)
    infinite = np.isinf(series)
    series[infinite] = np.nan
    returns = np.where(infinite[0], np.nan, returns)
    known: Flags = np.asarray(np.isfinite(series).all(0))
    days = None
    if picture:
        assert prices.days is not None and prices.day_closes is not None
        days = DailyCloses(prices.days, prices.day_closes, int(prices.months[0].astype(np.int64)), len(prices.months))
    whole = past_all(known, window_months) if days is None else days.whole()
    channels, blame = _channels(others, prices, returns, window_months)
    if not fill_forward:
        whole &= ~unchanged(returns, window_months)
    distrusted = whole & jumped(returns, max_jumps)
    whole &= ~distrusted
    halted = np.zeros_like(whole)
    if not fill_forward:
        halted[1:] = prices.closes == 0
        if prices.stale is not None:
            halted[1:] |= prices.stale
    halted &= whole
    newest_first = torch.from_numpy(np.ascontiguousarray(series[:, ::-1].transpose(0, 2, 1)))
    skipped = {
        "infinite values": int(infinite.sum()),
        "distrusted windows": int(distrusted.sum()),
        "halted windows": int(halted.sum()),
    }
    return Panel(prices, returns, newest_first, known, whole & ~halted, skipped, days, channels, blame)


def _channels(
    others: Mapping[str, Floats], prices: Prices, returns: Floats, window_months: int
) -> tuple[dict[str, str], str]:
    """What each series has, and the one that most windows are not whole for."""
    months, tickers = returns.shape
    windows = past_all(np.isfinite(returns), window_months)
    lines, most, blame = {}, 0, ""
    for name, values in others.items():
        known = np.isfinite(values)
        lost = int((windows & ~past_all(known, window_months)).sum())
        per = known.sum(0)
        usual = int(np.median(per[per > 0])) if per.any() else 0
        lines[name] = (
            f"{int((per > 0).sum()):,} of {tickers:,} tickers, {usual:,} of {months:,} months each; "
            f"{lost:,} windows skipped for it"
        )
        if lost > most:
            most, blame = lost, f"the channel {name} has values for {lines[name]}"
    return lines, blame
