"""Simulated returns with known effects, for which the best possible AUC is known."""

from typing import Any

import numpy as np

from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns
from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.windows import MONTHS, Floats
from lightning_cnn.errors import check

LAST = np.datetime64("2019-12", "M")


class SyntheticReturns(MonthlyReturns):
    """Simulated monthly returns with momentum and January effects of known strength; no market data.

    The return of a stock in a month is `volatility` x (signal + noise), the noise standard normal, the signal
    `momentum` x (sum of the returns of lags 2 to 12, divided by its deviation without signal) + `january` in January.
    The probability of a positive return is therefore known for every window, and so is the best AUC that a network
    can reach on these windows, `best_auc`, which requires 12 lags and the month dummies. The same seed gives the same
    returns, which end in December 2019.

    Args:
        stocks: Number of stocks.
        months: Number of months of prices.
        momentum: Strength of the momentum effect; 0 for none.
        january: Strength of the January effect; 0 for none.
        volatility: Standard deviation of the monthly returns without signal.
        seed: Seed of the simulation, independent of the seed of the run.

    Raises:
        UserError: If a value lies outside its range, or the months contradict each other.
    """

    fixed = (
        "prices", "returns", "date_column", "ticker_column", "price_column", "layout", "date_format", "time_zone",
        "last_month", "delisting_return", "decimal", "leave_out", "max_jumps", "year_dummies", "channels", "picture",
    )  # fmt: skip

    def __init__(
        self,
        stocks: int = 500,
        *,
        months: int = 180,
        momentum: float = 0.2,
        january: float = 0.5,
        volatility: float = 0.06,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(
            prices="", returns=None, date_column=None, ticker_column=None, price_column=None, layout=None,
            date_format=None, time_zone=None, last_month=None, delisting_return=None, decimal=None, leave_out=None,
            max_jumps=None, year_dummies=False, channels=None, picture=False, **options,
        )  # fmt: skip
        check("data.stocks", stocks, least=1)
        check("data.months", months, least=2)
        check("data.volatility", volatility, above=0, below=0.1)
        check("data.momentum", momentum, least=-0.25, most=0.25)  # above it returns would run away
        check("data.january", january, least=-1, most=1)
        self.stocks, self.length = stocks, months
        self.momentum, self.january, self.volatility, self.draw_seed = momentum, january, volatility, seed

    def read(self) -> Prices:
        """Simulates the returns, and computes prices from them."""
        random = np.random.default_rng(self.draw_seed)
        noise = random.standard_normal((self.length, self.stocks))
        months = np.arange(LAST + 1 - self.length, LAST + 1)
        returns, self._signal = np.zeros_like(noise), np.zeros_like(noise)
        strength = self.momentum / (self.volatility * np.sqrt(11))
        for row, month in enumerate(months.astype(np.int64)):
            past = returns[max(0, row - 12) : max(0, row - 1)].sum(0)
            self._signal[row] = strength * past + self.january * (month % MONTHS == 0)
            returns[row] = self.volatility * (self._signal[row] + noise[row])
        tickers = [f"S{number:04d}" for number in range(self.stocks)]
        closes: Floats = np.cumprod(1 + returns, axis=0, dtype=np.float64)
        return Prices(months, tickers, 100 * closes)

    def description(self) -> dict[str, str]:
        """Nothing: there is no file."""
        return {}

    def probabilities(self, part: str) -> Floats:
        """The true probability of a positive return, for each window of a part, `(n,)`.

        Args:
            part: `train`, `val` or `test`.
        """
        from scipy.stats import norm

        windows = self.dataset(part)
        found: Floats = norm.cdf(self._signal[windows.months.numpy() - self.read_panel().first, windows.tickers])
        return found

    def best_auc(self, part: str) -> float:
        """AUC of the true probabilities on the simulated outcomes, an upper bound for the expected AUC of a network.

        Args:
            part: `train`, `val` or `test`.
        """
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(self.dataset(part).outcomes.numpy() > 0, self.probabilities(part)))
