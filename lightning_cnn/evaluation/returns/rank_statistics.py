"""How well predictions order the stocks of each month."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]


def rank_ic(predictions: Floats, outcomes: Floats) -> Floats:
    """Rank correlation (Spearman) of predictions and outcomes within each month, the information coefficient.

    Args:
        predictions: `(months, tickers)`, NaN where there is none.
        outcomes: The same shape.

    Returns:
        `(months,)`; 0 where all predictions of a month are equal, NaN where all outcomes are.
    """
    both = np.isfinite(predictions) & np.isfinite(outcomes)
    ranks = [_centred(_ranks(np.where(both, values, np.nan))) for values in (predictions, outcomes)]
    squares = [np.nansum(rank**2, axis=1) for rank in ranks]
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: Floats = np.nansum(ranks[0] * ranks[1], axis=1) / np.sqrt(squares[0] * squares[1])
    return np.where(squares[1] > 0, np.where(squares[0] > 0, correlation, 0), np.nan)


def auc_by_month(predictions: Floats, outcomes: Floats) -> Floats:
    """AUC of "the outcome is above 0" within each month, from ranks (Mann and Whitney 1947).

    Args:
        predictions: `(months, tickers)`, NaN where there is none.
        outcomes: The same shape.

    Returns:
        `(months,)`; NaN where all outcomes of a month are of one class.
    """
    known = np.isfinite(predictions) & np.isfinite(outcomes)
    ranks = _ranks(np.where(known, predictions, np.nan))
    up = known & (outcomes > 0)
    ups, downs = up.sum(1), (known & ~up).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc: Floats = (np.where(up, ranks, 0).sum(1) - ups * (ups + 1) / 2) / (ups * downs)
    return np.where((ups > 0) & (downs > 0), auc, np.nan)


def auc(predictions: Floats, outcomes: Floats, rows: NDArray[np.bool_] | None = None) -> float:
    """AUC of "the outcome is above 0" over all months together.

    Args:
        predictions: `(months, tickers)`, NaN where there is none.
        outcomes: The same shape.
        rows: Which of them count, the same shape; None: all.

    Returns:
        NaN where all are of one class.
    """
    known = np.isfinite(predictions) & np.isfinite(outcomes)
    known &= True if rows is None else rows
    up = outcomes[known] > 0
    return float(roc_auc_score(up, predictions[known])) if up.any() and not up.all() else float("nan")


def mean_t_positive(values: Floats) -> tuple[float, float, float]:
    """Mean of monthly values, its t-statistic against 0, and the share of values above 0; NaN are left out."""
    found = values[np.isfinite(values)]
    if not len(found):
        return float("nan"), float("nan"), float("nan")
    spread = len(found) > 1 and np.ptp(found) > 0
    t = float(stats.ttest_1samp(found, 0.0).statistic) if spread else float("nan")
    return float(found.mean()), t, float((found > 0).mean())


def by_year(months: NDArray[np.datetime64], values: Floats) -> dict[int, float]:
    """Mean of monthly values in each calendar year; years without a value are left out."""
    years = months.astype("datetime64[Y]").astype(int) + 1970
    means = pd.Series(values).groupby(years).mean().dropna()
    return {int(year): float(mean) for year, mean in means.items()}


def dead_rows(outcomes: Floats) -> NDArray[np.bool_]:
    """Where a stock is dead: its return is exactly 0 from this month to its last, for two months or more.

    Prices that are filled forward after the last trade look like this, and a network can spot them.

    Args:
        outcomes: `(months, tickers)`, NaN where there is none.
    """
    known = np.isfinite(outcomes)
    still = np.where(known, outcomes == 0, True)
    to_the_end: NDArray[np.bool_] = np.logical_and.accumulate(still[::-1], axis=0)[::-1] & known
    dead: NDArray[np.bool_] = to_the_end & (to_the_end.sum(0) >= 2)
    return dead


def _ranks(values: Floats) -> Floats:
    ranks: Floats = pd.DataFrame(values).rank(axis=1).to_numpy()
    return ranks


def _centred(ranks: Floats) -> Floats:
    counts = np.isfinite(ranks).sum(1, keepdims=True)
    centred: Floats = ranks - np.nansum(ranks, axis=1, keepdims=True) / np.maximum(counts, 1)
    return centred
