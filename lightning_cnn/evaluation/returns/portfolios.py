"""Portfolios sorted by prediction: deciles, and the long-short portfolio with turnover and costs."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LongShort:
    """Monthly returns of a portfolio that is long the highest group and short the lowest.

    Attributes:
        gross: Returns before costs, `(months,)`.
        net: Returns after costs.
        turnover: Value bought and sold at the start of each month, as a share of the capital. The first month
            buys all: 2, one on each side.
    """

    gross: Floats
    net: Floats
    turnover: Floats


def group_weights(predictions: Floats, group: int, count: int) -> Floats:
    """Weights of the stocks in one of several groups of equal size, ordered by prediction within each month.

    A stock on a border belongs to both groups in part, and stocks with equal predictions share their places evenly.
    Groups therefore do not depend on the order of the tickers, and with a constant prediction each is the whole market.

    Args:
        predictions: `(months, tickers)`, NaN where there is none.
        group: Number of the group; 0 has the lowest predictions.
        count: Number of groups, such as 10 for deciles.

    Returns:
        The same shape; each month sums to 1, or is all 0 without predictions.
    """
    frame = pd.DataFrame(predictions)
    low, high = (frame.rank(axis=1, method=method).to_numpy() for method in ("min", "max"))
    size = frame.notna().sum(axis=1).to_numpy()[:, None] / count  # stocks in a group, not always a whole number
    places = np.minimum(high, (group + 1) * size) - np.maximum(low - 1, group * size)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.clip(places, 0, None) / (high - low + 1) / size
    return np.where(np.isfinite(weights), weights, 0.0)


def group_returns(predictions: Floats, outcomes: Floats, count: int) -> Floats:
    """Return of each group in each month, equally weighted, `(months, count)`; group 0 has the lowest predictions."""
    returns = np.nan_to_num(outcomes)
    return np.stack([(group_weights(predictions, group, count) * returns).sum(1) for group in range(count)], axis=1)


def market_returns(predictions: Floats, outcomes: Floats) -> Floats:
    """Return of all stocks that have a prediction, equally weighted, `(months,)`."""
    return group_returns(predictions, outcomes, 1)[:, 0]


def long_short(predictions: Floats, outcomes: Floats, count: int, cost_bps: float) -> LongShort:
    """Long the highest group, short the lowest, with the whole capital on each side, rebalanced monthly.

    Args:
        predictions: `(months, tickers)`, NaN where there is none.
        outcomes: The same shape.
        count: Number of groups.
        cost_bps: Cost of buying or selling, in hundredths of a per cent of the value traded.
    """
    returns = np.nan_to_num(outcomes)
    weights = group_weights(predictions, count - 1, count) - group_weights(predictions, 0, count)
    weights = np.round(weights, 12)  # equal predictions leave exactly nothing
    gross = (weights * returns).sum(1)
    capital = np.where(gross > -1, 1 + gross, 1.0)  # of a lost capital there is no share to speak of
    drifted = weights * (1 + returns) / capital[:, None]
    before = np.concatenate([np.zeros_like(weights[:1]), drifted[:-1]])
    turnover = np.abs(weights - before).sum(1)
    return LongShort(gross, gross - turnover * cost_bps / 10_000, turnover)
