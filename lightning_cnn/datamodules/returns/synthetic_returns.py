"""Drawn returns with planted effects, of which the best reachable AUC is known."""

import numpy as np
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns, Recipe
from lightning_cnn.datamodules.returns.price_file import Prices
from lightning_cnn.datamodules.returns.windows import MONTHS, Floats
from lightning_cnn.errors import UserError

LAST = np.datetime64("2019-12", "M")


class SyntheticReturns(MonthlyReturns):
    """Drawn monthly returns with planted momentum and a planted January, of known strength; no market data.

    The return of a stock in a month is `volatility` x (signal + noise), the noise standard normal, the signal
    `momentum` x (sum of the returns of lags 2 to 12, divided by its deviation without signal) + `january` in January.
    So the probability of a positive return is known for every window, and with it the best AUC that any network can
    reach on these windows, `best_auc`; a network needs 12 lags and the month dummies for it. The same seed gives the
    same returns, which end in December 2019.

    Args:
        stocks: Number of stocks.
        months: Months of prices.
        momentum: Strength of the momentum; 0 for none.
        january: Strength of the January effect; 0 for none.
        volatility: Deviation of the monthly returns without signal.
        seed: Of the drawing; it does not depend on the seed of the run.
        recipe: `honest`, or `book` with all its flaws.
        lags: Months of a window.
        month_dummies: Whether twelve numbers follow the lags, 1 for the month of the outcome and else 0.
        train_start: First month of training, such as 2010-01; default the first with a whole window.
        train_end: Last month of training, validation included; default the last before the test and its embargo.
        test_start: First month of the test; default the last 12 months.
        test_end: Last month of the test; default the last month of the prices.
        val_months: How many training months, the last ones, are for validation.
        embargo: Months left out between training and validation, and before the test; default 1, in the book's
            recipe 0.
        batch_size: Windows in a batch, over all processes together.
        clip: Share of the values of each column that is clipped at each end (winsorized).
        scale: Whether the clipped columns are brought to mean 0 and deviation 1; default true, in the book's recipe
            false.
        clip_with_test: Flaw: clipping and scaling are measured on validation and test months, too. Default: as in the
            recipe.
        full_history: Flaw: only stocks with prices in all months of training and test count. Default: as in the recipe.
        fill_forward: Flaw: missing prices are filled with the last one, so that dead stocks have returns of zero.
            Default: as in the recipe.
        validate_on_test: Flaw: the test months are the validation months. Default: as in the recipe.

    Raises:
        UserError: If a value lies outside its range, or the months contradict each other.
    """

    def __init__(
        self,
        stocks: int = 500,
        months: int = 180,
        momentum: float = 0.2,
        january: float = 0.5,
        volatility: float = 0.06,
        seed: int = 0,
        recipe: Recipe = "honest",
        lags: int = 24,
        month_dummies: bool = True,
        train_start: str | None = None,
        train_end: str | None = None,
        test_start: str | None = None,
        test_end: str | None = None,
        val_months: int = 12,
        embargo: int | None = None,
        batch_size: int = 256,
        clip: float = 0.01,
        scale: bool | None = None,
        clip_with_test: bool | None = None,
        full_history: bool | None = None,
        fill_forward: bool | None = None,
        validate_on_test: bool | None = None,
    ) -> None:
        super().__init__(
            prices="",
            recipe=recipe,
            lags=lags,
            month_dummies=month_dummies,
            train_start=train_start,
            train_end=train_end,
            test_start=test_start,
            test_end=test_end,
            val_months=val_months,
            embargo=embargo,
            batch_size=batch_size,
            clip=clip,
            scale=scale,
            clip_with_test=clip_with_test,
            full_history=full_history,
            fill_forward=fill_forward,
            validate_on_test=validate_on_test,
        )
        self.save_hyperparameters(logger=False)
        if stocks < 1 or months < 2:
            raise UserError(f"--data.stocks {stocks} with --data.months {months}: expected at least 1 and 2")
        if not (0 < volatility < 0.1 and abs(momentum) <= 0.25 and abs(january) <= 1):
            raise UserError(
                f"--data.volatility {volatility}, --data.momentum {momentum}, --data.january {january}: expected a "
                "volatility between 0 and 0.1, momentum between -0.25 and 0.25 (above it returns would run away), and "
                "january between -1 and 1"
            )
        self.stocks, self.length = stocks, months
        self.momentum, self.january, self.volatility, self.draw_seed = momentum, january, volatility, seed

    def read(self) -> Prices:
        """Draws the returns, and the prices that they make."""
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

    def probabilities(self, part: str) -> Floats:
        """The true probability of a positive return, for each window of a part, `(n,)`.

        Args:
            part: `train`, `val` or `test`.
        """
        windows = self.dataset(part)
        found: Floats = norm.cdf(self._signal[windows.months.numpy() - self._first, windows.tickers])
        return found

    def best_auc(self, part: str) -> float:
        """The AUC of the true probabilities on the outcomes that were drawn: no network can expect to do better.

        Args:
            part: `train`, `val` or `test`.
        """
        return float(roc_auc_score(self.dataset(part).outcomes.numpy() > 0, self.probabilities(part)))
