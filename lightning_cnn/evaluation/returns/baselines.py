"""Baselines, fitted on the same training rows as the network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_cnn.evaluation.returns.predictions import Kind

Floats = NDArray[np.float64]
MOMENTUM = range(2, 13)  # lags of 12-1 momentum: the year before the last month (Jegadeesh and Titman 1993)


@dataclass(frozen=True)
class Rows:
    """Windows of monthly returns and their outcomes.

    Attributes:
        windows: Inputs of the network, `(n, channels, length)`.
        up: Whether the outcome is above 0, `(n,)`.
    """

    windows: NDArray[np.float32]
    up: NDArray[np.bool_]

    @property
    def flat(self) -> NDArray[np.float32]:
        """One row of numbers for each window."""
        return self.windows.reshape(len(self.windows), -1)


def past_return(returns: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp], lags: range) -> Floats:
    """Compounded return of some months before each outcome; months without a return count as 0.

    Args:
        returns: `(months, tickers)`.
        rows: Month of each outcome, a row of `returns`, `(n,)`.
        columns: Its ticker, `(n,)`.
        lags: Months before the outcome; 1 is the month just before it.
    """
    grown = np.ones(len(rows))
    for lag in lags:
        past = np.where(rows >= lag, returns[np.maximum(rows - lag, 0), columns], 0.0)
        grown *= 1 + np.nan_to_num(past)
    return grown - 1


def baselines(
    train: Rows, test: Rows, returns: Floats, rows: NDArray[np.intp], columns: NDArray[np.intp], seed: int = 0
) -> pd.DataFrame:
    """Predictions of each baseline for the rows of a test.

    `always_up` predicts up with probability 1. `momentum_12_1` is the return of the year before the last month,
    `reversal` the negative return of the last month. `logistic_regression` (on standardized inputs) and
    `gradient_boosting` are scikit-learn's with default settings and no early stopping, on the windows of the network,
    month dummies included.

    Args:
        train: The rows that the network was trained on.
        test: The rows of the test.
        returns: Monthly returns of all stocks, `(months, tickers)`, not clipped.
        rows: Month of each row of the test, a row of `returns`.
        columns: Ticker of each row of the test.
        seed: Seed of the gradient boosting.

    Returns:
        A column for each baseline, in the order of the test.
    """
    models: dict[str, Callable[[], ClassifierMixin]] = {
        "logistic_regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "gradient_boosting": lambda: HistGradientBoostingClassifier(early_stopping=False, random_state=seed),
    }
    found = {
        "always_up": np.ones(len(test.up)),
        "momentum_12_1": past_return(returns, rows, columns, MOMENTUM),
        "reversal": -past_return(returns, rows, columns, range(1, 2)),
    }
    for name, model in models.items():
        found[name] = model().fit(train.flat, train.up).predict_proba(test.flat)[:, 1]  # type: ignore[attr-defined]
    return pd.DataFrame(found)


KINDS: dict[str, Kind] = {
    "always_up": "probability",
    "momentum_12_1": "score",
    "reversal": "score",
    "logistic_regression": "probability",
    "gradient_boosting": "probability",
}
