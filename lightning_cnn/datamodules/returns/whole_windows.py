"""Which stocks count in which month: those with a whole window of months before it, as far as their prices go."""

import numpy as np
from numpy.typing import NDArray

from lightning_cnn.datamodules.returns.price_file import JUMP
from lightning_cnn.datamodules.returns.windows import Flags, Floats

UNCHANGED = 6  # months at least, after which a price that does not change is no price


def past_all(flags: Flags, count: int) -> Flags:
    """Whether a flag was set in each of the `count` months before a month.

    Args:
        flags: `(months, tickers)`.
        count: Number of months.

    Returns:
        `(months + 1, tickers)`; the last row is the month after the data.
    """
    total = _past_sum(flags)
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
    with np.errstate(invalid="ignore"):
        found: Flags = np.asarray(_past_sum((returns > JUMP - 1) | (returns < 1 / JUMP - 1)) > allowed)
    return found


def _past_sum(flags: Flags) -> NDArray[np.int32]:
    total = np.zeros((len(flags) + 1, flags.shape[1]), dtype=np.int32)
    np.cumsum(flags, axis=0, out=total[1:])
    return total
