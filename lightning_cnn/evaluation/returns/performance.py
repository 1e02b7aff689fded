"""Statistics of monthly returns: Sharpe ratio and its uncertainty, drawdown, annual return and volatility."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
YEAR = 12


def wealth(returns: Floats) -> Floats:
    """Wealth from a capital of 1, at the start and after each month, `(months + 1,)`; it never recovers from 0."""
    return np.concatenate([[1.0], np.cumprod(np.clip(1 + returns, 0, None))])


def drawdown(returns: Floats) -> Floats:
    """Loss since the highest wealth so far, at the start and after each month; at most 0."""
    value = wealth(returns)
    return value / np.maximum.accumulate(value) - 1


def annual_return(returns: Floats) -> float:
    """Compounded annual return."""
    end = float(wealth(returns)[-1])
    return float(end ** (YEAR / len(returns))) - 1


def annual_volatility(returns: Floats) -> float:
    """Annualized standard deviation; NaN for a single month."""
    return float(np.std(returns, ddof=1) * math.sqrt(YEAR)) if len(returns) > 1 else math.nan


def by_year(months: NDArray[np.datetime64], values: Floats) -> dict[int, float]:
    """Mean of monthly values by calendar year, NaN ignored; years without a value are omitted."""
    years = months.astype("datetime64[Y]").astype(int) + 1970
    means = pd.Series(values).groupby(years).mean().dropna()
    return {int(year): float(mean) for year, mean in means.items()}


def sharpe(returns: Floats) -> float:
    """Annualized Sharpe ratio of self-financing returns: no risk-free rate is subtracted.

    Args:
        returns: `(..., months)`.

    Returns:
        `(...,)`, NaN if all months are equal.
    """
    ratio = _monthly_sharpe(returns) * math.sqrt(YEAR)
    return float(ratio) if returns.ndim == 1 else ratio  # type: ignore[return-value]


def sharpe_interval(
    returns: Floats, block: int, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of the annualized Sharpe ratio by the circular block bootstrap (Politis and Romano 1992).

    Blocks of consecutive months keep their dependence.

    Args:
        returns: Of each month, `(months,)`.
        block: Months per block.
        draws: Number of draws.
        level: Share of the draws inside the interval.
        seed: Seed of the draws.

    Returns:
        Lower and upper bound, NaN if the ratio is NaN, or there are no two blocks to draw from.
    """
    length = len(returns)
    if not math.isfinite(sharpe(returns)) or length < 2 * block:
        return math.nan, math.nan
    count = math.ceil(length / block)
    starts = np.random.default_rng(seed).integers(0, length, (draws, count))
    resampled = ((starts[:, :, None] + np.arange(block)) % length).reshape(draws, -1)[:, :length]
    ratios = _monthly_sharpe(returns[resampled]) * math.sqrt(YEAR)
    low, high = np.nanquantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def expected_best_sharpe(trials: int, variance: float) -> float:
    """The expected maximum of the Sharpe ratios of several strategies without skill.

    Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014), equation 1.

    Args:
        trials: Number of independent strategies.
        variance: Variance of their Sharpe ratios.
    """
    if trials < 2:
        return 0.0
    usual, rare = stats.norm.ppf([1 - 1 / trials, 1 - 1 / (trials * math.e)])
    return math.sqrt(variance) * float((1 - np.euler_gamma) * usual + np.euler_gamma * rare)


def deflated_sharpe(returns: Floats, trials: int) -> float:
    """Probability that the true Sharpe ratio exceeds the maximum expected by chance among several trials.

    Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014), equation 2, with the variance of the Sharpe ratio of a
    strategy without skill, 1 / (months - 1). It assumes independent trials and is therefore conservative if they are
    correlated.

    Args:
        returns: Of each month, `(months,)`.
        trials: Number of configurations tried, including this one.

    Returns:
        0 to 1; above 0.95 is commonly required. NaN if the Sharpe ratio is NaN or the moments allow none.
    """
    months, ratio = len(returns), sharpe(returns) / math.sqrt(YEAR)
    if months < 3 or not math.isfinite(ratio):
        return math.nan
    skew, kurtosis = float(stats.skew(returns)), float(stats.kurtosis(returns, fisher=False))
    return probabilistic_sharpe(ratio, expected_best_sharpe(trials, 1 / (months - 1)), months, skew, kurtosis)


def probabilistic_sharpe(ratio: float, beaten: float, periods: int, skew: float, kurtosis: float) -> float:
    """Probability that the true Sharpe ratio exceeds a benchmark.

    Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014), equation 2.

    Args:
        ratio: The estimated ratio per period.
        beaten: The benchmark per period.
        periods: Number of periods.
        skew: Skewness of the returns.
        kurtosis: Kurtosis of the returns, 3 for the normal distribution.

    Returns:
        0 to 1, NaN if the moments allow none.
    """
    spread = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    if spread <= 0:
        return math.nan
    return float(stats.norm.cdf((ratio - beaten) * math.sqrt(periods - 1) / math.sqrt(spread)))


def _monthly_sharpe(returns: Floats) -> Floats:
    if returns.shape[-1] < 2:
        return np.full(returns.shape[:-1], np.nan)
    spread = returns.std(axis=-1, ddof=1)
    still = np.ptp(returns, axis=-1) <= 1e-12 * np.abs(returns).max(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.where(still, np.nan, returns.mean(axis=-1) / spread)
    return ratio
