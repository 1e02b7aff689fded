import math

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from torch import Tensor

from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns import performance, portfolios
from lightning_cnn.evaluation.returns.baselines import Rows, baselines, past_return
from lightning_cnn.evaluation.returns.measures import delisted_rows
from lightning_cnn.evaluation.returns.month_split import MonthSplit, check_apart
from lightning_cnn.evaluation.returns.ranking import mean_t_positive, monthly_aucs, monthly_ics, ranking_metrics

Floats = NDArray[np.float64]


def months(first: str, count: int) -> NDArray[np.datetime64]:
    return np.arange(np.datetime64(first, "M"), np.datetime64(first, "M") + count)


@pytest.fixture
def sampled() -> tuple[Floats, Floats]:
    """Predictions with ties and outcomes that they have a part in, `(30, 40)`, with holes."""
    random = np.random.default_rng(0)
    predictions = random.integers(0, 12, (30, 40)) / 12
    outcomes = 0.3 * predictions + random.standard_normal((30, 40))
    hole = random.random((30, 40)) < 0.2
    predictions[hole], outcomes[hole] = np.nan, np.nan
    return predictions, outcomes


# ---- months


def test_the_windows_expand_or_roll() -> None:
    known = months("2000-01", 48)
    expanding = MonthSplit(test_months=12, train_months=24, embargo=2).folds(known)
    assert [(str(f.train_start), str(f.train_end), str(f.test_start), str(f.test_end)) for f in expanding] == [
        ("2000-01", "2001-12", "2002-03", "2003-02"),
        ("2000-01", "2002-12", "2003-03", "2003-12"),  # what is left
    ]
    rolling = MonthSplit("rolling", 12, 24, 0, first_test="2002-06", last_test="2003-08").folds(known)
    assert [(str(f.train_start), str(f.train_end), str(f.test_start), str(f.test_end)) for f in rolling] == [
        ("2000-06", "2002-05", "2002-06", "2003-05"),
        ("2001-06", "2003-05", "2003-06", "2003-08"),
    ]
    assert expanding[0].name == "2002-03_2003-02"


@pytest.mark.parametrize("scheme", ["expanding", "rolling"])
@pytest.mark.parametrize("embargo", [0, 1, 5])
@pytest.mark.parametrize("test_months", [1, 7, 12])
def test_every_test_month_comes_once_and_after_its_training(scheme: str, embargo: int, test_months: int) -> None:
    rows = np.random.default_rng(0).permutation(np.repeat(months("1999-05", 90), 3))
    split = MonthSplit(scheme, test_months, 30, embargo)  # type: ignore[arg-type]
    folds = list(split.split(rows, groups=rows))
    assert len(folds) == split.get_n_splits(groups=rows) == math.ceil((90 - 30 - embargo) / test_months)
    tested = np.sort(np.concatenate([rows[test] for _, test in folds]))
    assert (tested == np.repeat(months("1999-05", 90)[30 + embargo :], 3)).all()
    for train, test in folds:
        assert rows[test].min() - rows[train].max() == embargo + 1
        if scheme == "rolling":
            assert len(np.unique(rows[train])) == 30
        else:
            assert rows[train].min() == np.datetime64("1999-05")
        check_apart(rows[train], rows[test], 24, embargo)


def test_scikit_learn_takes_the_splitter() -> None:
    rows = np.repeat(months("2000-01", 40), 5)
    x, y = np.zeros((200, 1)), np.arange(200) % 5 == 0
    scores = cross_val_score(DummyClassifier(), x, y, groups=rows, cv=MonthSplit(test_months=4, train_months=20))
    assert scores == pytest.approx([0.8] * 5)


@pytest.mark.parametrize(
    ("trained", "tested", "embargo"),
    [("2005-03", "2005-03", 0), ("2005-03", "2005-04", 1), ("2005-03", "2005-05", 2), ("2005-09", "2005-03", 0)],
)
def test_a_leak_is_found(trained: str, tested: str, embargo: int) -> None:
    with pytest.raises(RuntimeError, match="leak"):
        check_apart(months(trained, 3) - 2, months(tested, 3), 24, embargo)
    check_apart(months("2005-03", 3) - 2, months("2005-07", 3), 24, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_months": 60}, "too few months for one fold"),
        ({"train_months": 12, "first_test": "2000-06"}, "leaves 4 months of training"),
        ({"train_months": 12, "first_test": "2006-06"}, "too few months for one fold"),
        ({"train_months": 12, "last_test": "2000-06"}, "too few months for one fold"),
        ({"first_test": "June"}, "`first_test` June: it must be a month such as 2006-01"),
        ({"test_months": 0}, "`test_months` 0: it must be at least 1"),
        ({"embargo": -1}, "`embargo` -1: it must be at least 0"),
    ],
)
def test_what_can_not_be_split(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MonthSplit(**options).folds(months("2000-01", 48))  # type: ignore[arg-type]


# ---- ranks


def flat(predictions: Floats, outcomes: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, outcomes and months of tables of months and tickers."""
    rows, columns = np.nonzero(np.isfinite(predictions))
    values = predictions[rows, columns], outcomes[rows, columns], rows
    return tuple(torch.from_numpy(part) for part in values)  # type: ignore[return-value]


def test_rank_ic_is_spearmans_correlation(sampled: tuple[Floats, Floats]) -> None:
    found = monthly_ics(*flat(*sampled))[1]
    for row, value in enumerate(found.tolist()):
        known = np.isfinite(sampled[0][row])
        assert value == pytest.approx(stats.spearmanr(sampled[0][row][known], sampled[1][row][known]).statistic)
    assert monthly_ics(*flat(np.ones((1, 5)), np.arange(5.0)[None]))[1].tolist() == [0]  # as in the training
    assert not len(monthly_ics(*flat(np.arange(5.0)[None], np.ones((1, 5))))[1])


def test_auc_is_scikit_learns(sampled: tuple[Floats, Floats]) -> None:
    found = monthly_aucs(*flat(*sampled))[1]
    for row, value in enumerate(found.tolist()):
        known = np.isfinite(sampled[0][row])
        assert value == pytest.approx(roc_auc_score(sampled[1][row][known] > 0, sampled[0][row][known]))
    assert not len(monthly_aucs(*flat(np.arange(5.0)[None], np.ones((1, 5))))[1])
    known = np.isfinite(sampled[0])
    everything = float(ranking_metrics(*flat(*sampled))["auc"])
    assert everything == pytest.approx(roc_auc_score(sampled[1][known] > 0, sampled[0][known]))


def test_mean_t_and_share_positive_are_scipys() -> None:
    values = torch.tensor([0.1, -0.02, 0.05, 0.0], dtype=torch.float64)
    mean, t, positive = map(float, mean_t_positive(values))
    assert (mean, t, positive) == pytest.approx((0.0325, stats.ttest_1samp(values, 0).statistic, 0.5))
    for same in (values[:0], values[:1], torch.full((3,), 0.1, dtype=torch.float64)):
        assert mean_t_positive(same)[1].isnan()


def test_by_year() -> None:
    assert performance.by_year(months("2000-11", 4), np.array([1.0, 2.0, np.nan, 5.0])) == {2000: 1.5, 2001: 5.0}


def test_delisted_stocks_are_those_that_stay_at_zero() -> None:
    nan = np.nan
    outcomes = np.array([[0.1, 0, 0.1, 0], [0, 0, 0.2, 0.1], [0, 0, 0, 0.2], [0, nan, nan, 0.3]])
    first, middle, last = [False, True, False, False], [True, True, False, False], [True, False, False, False]
    assert delisted_rows(outcomes).tolist() == [first, middle, middle, last]  # a single zero at the end may be chance


# ---- portfolios


def test_groups_of_equal_size_by_hand() -> None:
    predictions = np.array([[5.0, 1, 3, 2, 4, np.nan], [1.0, 1, 1, 1, 1, 1], [2.0, 1, 1, 1, 3, np.nan]])
    low, high = (portfolios.group_weights(predictions, group, 2) for group in (0, 1))
    # five stocks in two groups: the third belongs to both by half
    assert low[0] == pytest.approx([0, 0.4, 0.2, 0.4, 0, 0])
    assert high[0] == pytest.approx([0.4, 0, 0.2, 0, 0.4, 0])
    assert low[1] == pytest.approx([1 / 6] * 6)  # equal predictions: the whole market
    assert high[1] == pytest.approx([1 / 6] * 6)
    assert low[2] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0, 0])  # the three lowest have 2.5 of 2.5 places
    assert high[2] == pytest.approx([0.4, 0.2 / 3, 0.2 / 3, 0.2 / 3, 0.4, 0])


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_weights_of_all_groups(sampled: tuple[Floats, Floats], count: int) -> None:
    predictions = sampled[0]
    weights = np.stack([portfolios.group_weights(predictions, group, count) for group in range(count)])
    assert weights.sum(2) == pytest.approx(np.ones((count, 30)))
    number = np.isfinite(predictions).sum(1)
    shares = weights.sum(0) * number[:, None] / count  # every stock is in the groups once, all in all
    assert shares[np.isfinite(predictions)] == pytest.approx(1.0)
    assert (weights[:, ~np.isfinite(predictions)] == 0).all()


def test_deciles_are_pandas_own_where_nothing_is_equal() -> None:
    random = np.random.default_rng(1)
    predictions, outcomes = random.random((4, 50)), random.standard_normal((4, 50))
    found = portfolios.group_returns(predictions, outcomes, 10)
    for row in range(4):
        labels = pd.qcut(predictions[row], 10, labels=False)
        assert found[row] == pytest.approx(pd.Series(outcomes[row]).groupby(labels).mean().to_numpy())


def test_long_short_with_costs_by_hand() -> None:
    predictions = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    outcomes = np.array([[-0.1, 0.1], [0.0, 0.2], [0.1, 0.0]])
    found = portfolios.long_short(predictions, outcomes, 2, cost_bps=100)
    assert found.gross == pytest.approx([0.2, 0.2, 0.1])
    # first month: buys 1 and sells 1. After it the long position is 1.1 and the short one 0.9 of a capital of 1.2;
    # back to 1 each: |1 - 1.1/1.2| + |1 - 0.9/1.2| = 1/12 + 1/4. Then 1.2/1.2 long and 1/1.2 short turn round:
    # 1 sold and 1 sold short, 1/1.2 bought back and 1 bought.
    assert found.turnover == pytest.approx([2.0, 1 / 3, 1 + 1 + 1 / 1.2 + 1])
    assert found.net == pytest.approx(found.gross - found.turnover / 100)


def test_equal_predictions_earn_and_trade_exactly_nothing() -> None:
    outcomes = np.random.default_rng(0).standard_normal((20, 453)) / 10
    found = portfolios.long_short(np.ones_like(outcomes), outcomes, 10, 10)
    assert not found.gross.any() and not found.turnover.any() and not found.net.any()
    market = portfolios.market_returns(np.ones_like(outcomes), outcomes)
    assert market == pytest.approx(outcomes.mean(1))


def test_a_stock_that_disappears_is_sold() -> None:
    predictions = np.array([[1.0, 2.0, 3.0, np.nan], [1.0, 2.0, np.nan, 3.0]])
    found = portfolios.long_short(predictions, np.zeros_like(predictions), 3, 0)
    assert found.turnover == pytest.approx([2.0, 2.0])  # one long position sold, another bought; the short one stays


# ---- performance


def test_wealth_drawdown_and_figures_by_year() -> None:
    returns = np.array([0.1, -0.5, 0.2, 1.0])
    assert performance.wealth(returns) == pytest.approx([1, 1.1, 0.55, 0.66, 1.32])
    assert performance.drawdown(returns) == pytest.approx([0, 0, -0.5, -0.4, 0])
    assert performance.annual_return(np.full(24, 0.01)) == pytest.approx(1.01**12 - 1)
    assert performance.annual_volatility(returns) == pytest.approx(np.std(returns, ddof=1) * 12**0.5)
    assert performance.sharpe(returns) == pytest.approx(returns.mean() / returns.std(ddof=1) * 12**0.5)
    assert performance.wealth(np.array([-1.5, 1.0])).tolist() == [1, 0, 0]  # what is lost stays lost
    assert math.isnan(performance.sharpe(np.full(12, 0.01)))
    assert math.isnan(performance.sharpe(np.array([0.01])))


def test_blocks_of_one_month_are_scipys_bootstrap() -> None:
    returns = np.random.default_rng(0).normal(0.01, 0.03, 120)
    found = performance.sharpe_interval(returns, 1, draws=9000)
    reference = stats.bootstrap(
        (returns,), lambda x, axis: x.mean(axis) / x.std(axis, ddof=1) * 12**0.5, method="percentile", rng=1
    ).confidence_interval
    assert found == pytest.approx((reference.low, reference.high), abs=0.06)
    assert found == performance.sharpe_interval(returns, 1, draws=9000)  # seeded


def test_less_than_two_blocks_have_no_interval() -> None:
    returns = np.random.default_rng(0).normal(0.01, 0.03, 60)
    assert np.isnan(performance.sharpe_interval(returns, 31)).all()
    assert np.isfinite(performance.sharpe_interval(returns, 30)).all()


def test_blocks_widen_the_interval_where_months_resemble_their_neighbours() -> None:
    random = np.random.default_rng(0)
    returns = 0.01 + 0.02 * np.repeat(random.standard_normal(40), 6)  # each month six times
    narrow, wide = (np.ptp(performance.sharpe_interval(returns, block)) for block in (1, 12))
    assert 1.6 < wide / narrow < 2.8  # sqrt(6) = 2.4 for long blocks


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    true = 0.2 * 12**0.5
    hits = [
        low < true < high
        for low, high in (
            performance.sharpe_interval(random.normal(0.2, 1, 120), 3, draws=300, seed=s) for s in range(300)
        )
    ]
    assert 0.88 < np.mean(hits) < 0.98


def test_deflated_sharpe_of_the_papers_example() -> None:
    # Bailey and Lopez de Prado 2014, "A numerical example": 100 trials, SR 2.5 a year of 1,250 days (250 a year),
    # variance 1/2 a year, skewness -3, kurtosis 10: the best of luck is 0.1132 a day, the deflated ratio 0.9004
    beaten = performance.expected_best_sharpe(100, 0.5 / 250)
    assert beaten == pytest.approx(0.1132, abs=1e-4)
    found = performance.probabilistic_sharpe(2.5 / 250**0.5, beaten, 1250, -3, 10)
    assert found == pytest.approx(0.9004, abs=1e-4)


def test_deflated_sharpe_by_its_parts() -> None:
    returns = np.random.default_rng(3).gamma(2, 0.02, 90) - 0.035
    ratio = returns.mean() / returns.std(ddof=1)
    spread = 1 - stats.skew(returns) * ratio + (stats.kurtosis(returns) + 2) / 4 * ratio**2
    expected = stats.norm.cdf((ratio - performance.expected_best_sharpe(7, 1 / 89)) * (89 / spread) ** 0.5)
    assert performance.deflated_sharpe(returns, 7) == pytest.approx(expected)
    probabilities = [performance.deflated_sharpe(returns, trials) for trials in (1, 2, 10, 100)]
    assert probabilities == sorted(probabilities, reverse=True) and probabilities[0] - probabilities[3] > 0.1


def test_the_best_of_many_without_skill_is_what_luck_gives() -> None:
    draws = np.random.default_rng(0).standard_normal((200, 20, 120))
    best = (draws.mean(2) / draws.std(2, ddof=1)).max(1).mean()
    assert performance.expected_best_sharpe(20, 1 / 119) == pytest.approx(best, rel=0.06)


# ---- baselines


def test_past_returns_are_compounded() -> None:
    returns = np.array([[0.1, np.nan], [0.2, 0.5], [-0.5, 0.1], [0.3, 0.0]])
    rows, columns = np.array([3, 3, 1]), np.array([0, 1, 0])
    assert past_return(returns, rows, columns, range(2, 4)) == pytest.approx([1.2 * 1.1 - 1, 0.5, 0])
    assert past_return(returns, rows, columns, range(1, 2)) == pytest.approx([-0.5, 0.1, 0.1])


def test_baselines_find_what_is_planted_in_the_training_rows() -> None:
    random = np.random.default_rng(0)
    windows = random.standard_normal((3000, 1, 6)).astype(np.float32)
    up = windows[:, 0, 2] + 0.5 * random.standard_normal(3000) > 0
    train, test = Rows(windows[:2000], up[:2000]), Rows(windows[2000:], up[2000:])
    returns = random.standard_normal((30, 5)) / 10
    rows, columns = random.integers(13, 30, 1000), random.integers(0, 5, 1000)
    found = baselines(train, test, returns, rows, columns)
    assert list(found) == ["always_up", "momentum_12_1", "reversal", "logistic_regression", "gradient_boosting"]
    assert (found["always_up"] == 1).all()
    assert found["reversal"].to_numpy() == pytest.approx(-returns[rows - 1, columns])
    expected = [np.prod(1 + returns[row - 12 : row - 1, column]) - 1 for row, column in zip(rows, columns, strict=True)]
    assert found["momentum_12_1"].to_numpy() == pytest.approx(expected)
    for name in ("logistic_regression", "gradient_boosting"):
        assert roc_auc_score(test.up, found[name]) > 0.9
        assert found[name].between(0, 1).all()
