"""Returns by month and ticker, further series beside them, and which windows of them are whole."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.datamodules.returns.pictures import DailyCloses
from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.windows import Flags, Floats, change, jumped, past_all, unchanged
from lightning_cnn.errors import UserError


@dataclass(frozen=True)
class Panel:
    """What windows are cut from; made once, whatever the months of training and test.

    Attributes:
        prices: The prices.
        returns: `(months, tickers)`, NaN where there is none.
        newest_first: The returns and the further series, float32 `(channels, tickers, months)`.
        known: Where all series have a value, `(months, tickers)`.
        whole: Where the window before a month is whole, `(months + 1, tickers)`; the last row is the month after.
        distrusted: Number of windows that are not, because the prices have jumped too often.
        days: Daily closes, where pictures are made of them.
    """

    prices: Prices
    returns: Floats
    newest_first: Tensor
    known: Flags
    whole: Flags
    distrusted: int
    days: DailyCloses | None

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

    Args:
        prices: The prices.
        others: Further series by name, `(months, tickers)`.
        window_months: Months of a window.
        max_jumps: In how many months a price may jump.
        fill_forward: Whether missing prices are filled with the last one.
        picture: Whether windows are pictures of daily closes.

    Raises:
        UserError: If a value is infinite.
    """
    returns = change(prices.closes, fill_forward)
    series = np.stack([returns, *others.values()]).astype(np.float32)
    if np.isinf(series).any():
        channel, month, number = np.argwhere(np.isinf(series))[0]
        raise UserError(
            f"the {['return', *others][channel]} of {prices.tickers[number]} in {prices.months[month]} is "
            "infinite: correct its values in that month and the one before"
        )
    known: Flags = np.asarray(np.isfinite(series).all(0))
    days = None
    if picture:
        assert prices.days is not None and prices.day_closes is not None
        days = DailyCloses(prices.days, prices.day_closes, int(prices.months[0].astype(np.int64)), len(prices.months))
    whole = past_all(known, window_months) if days is None else days.whole()
    if not fill_forward:
        whole &= ~unchanged(returns, window_months)
    distrusted = whole & jumped(returns, max_jumps)
    newest_first = torch.from_numpy(np.ascontiguousarray(series[:, ::-1].transpose(0, 2, 1)))
    return Panel(prices, returns, newest_first, known, whole & ~distrusted, int(distrusted.sum()), days)
