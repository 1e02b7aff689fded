"""Simulated returns: what is planted in them, and what can be found."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lightning_cnn.datamodules import SyntheticReturns


def test_simulated_returns_have_the_stated_effects() -> None:
    data = SyntheticReturns(stocks=300, months=120, seed=4)
    data.setup("fit")
    data.setup("test")
    chance = data.probabilities("train")
    up = data.arrays("train")[1] > 0
    order = chance.argsort()
    for group in np.array_split(order, 8):  # calibrated, within four standard errors
        assert up[group].mean() == pytest.approx(chance[group].mean(), abs=4 * 0.5 / len(group) ** 0.5)
    january = data.frame("train").date.dt.month == 1
    assert chance[january].mean() > chance[~january].mean() + 0.15
    again, other = SyntheticReturns(stocks=300, months=120, seed=4), SyntheticReturns(stocks=300, months=120, seed=5)
    for one in (again, other):
        one.setup("fit")
    assert np.array_equal(again.arrays("train")[0], data.arrays("train")[0])
    assert not np.array_equal(other.arrays("train")[0], data.arrays("train")[0])


def test_what_is_planted_can_be_reached() -> None:
    """A linear model sees what there is: 95 % of the excess of the best AUC, and nothing where nothing was planted."""
    for planted in (True, False):
        none: dict[str, Any] = {} if planted else {"momentum": 0.0, "january": 0.0}
        data = SyntheticReturns(test_start="2018-01", **none)
        data.setup("fit")
        data.setup("test")
        windows, outcomes, _ = data.arrays("train")
        model = LogisticRegression(max_iter=1000).fit(windows[:, 0], outcomes > 0)
        windows, outcomes, _ = data.arrays("test")
        auc, best = roc_auc_score(outcomes > 0, model.decision_function(windows[:, 0])), data.best_auc("test")
        if planted:
            assert best > 0.6 and auc - 0.5 > 0.95 * (best - 0.5)
        else:
            assert best == 0.5 and auc == pytest.approx(0.5, abs=0.02)


def test_simulated_returns_say_what_they_are() -> None:
    data = SyntheticReturns(stocks=20, months=80, lags=6)
    assert data.facts() == {"num_classes": 1, "in_channels": 1, "lags": 6, "window_length": 18}
