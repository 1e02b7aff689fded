"""All numbers of the report, for each method."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_cnn.errors import check
from lightning_cnn.evaluation.confidence import calibration_error, calibration_groups
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.evaluation.returns import performance, portfolios
from lightning_cnn.evaluation.returns.portfolios import LongShort
from lightning_cnn.evaluation.returns.predictions import MODEL, Floats, Kind, Panel
from lightning_cnn.evaluation.returns.ranking import (
    RANKING,
    auc,
    mean_t_positive,
    monthly_aucs,
    monthly_ics,
)

EXTREME = 3.0  # a return of 300 % in a month is a wrong price more often than a true one
LOSS = -0.9  # below it lie bankruptcies, and splits for which prices are not adjusted


@dataclass(frozen=True)
class Settings:
    """How predictions are evaluated.

    Attributes:
        cost_bps: Cost of buying or selling, in hundredths of a per cent of the value traded.
        deciles: Number of groups of stocks.
        block_months: Months of a block of the bootstrap.
        seed: Seed of the bootstrap.
        trials: Number of configurations tried on these data, including this one.

    Raises:
        UserError: If a number is out of range.
    """

    cost_bps: float = 10.0
    deciles: int = 10
    block_months: int = 6
    seed: int = 0
    trials: int = 1

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name, least in (("deciles", 2), ("block_months", 1), ("trials", 1), ("cost_bps", 0)):
            check(name, getattr(self, name), least=least)
        check("cost_bps", self.cost_bps, below=10_000)


@dataclass(frozen=True)
class Method:
    """The performance of one method.

    Attributes:
        name: The model, or a baseline.
        kind: What it predicts: probabilities, scores or ranks.
        ic: Rank IC of each month, `(months,)`.
        auc_month: AUC of each month.
        groups: Return of each group in each month, `(months, groups)`.
        portfolio: Long the highest group, short the lowest.
        calibration: Mean probability, share above 0 and size of each bin; None for scores.
        numbers: The numbers of the table, by name.
    """

    name: str
    kind: Kind
    ic: Floats
    auc_month: Floats
    groups: Floats
    portfolio: LongShort
    calibration: tuple[Floats, Floats, Floats] | None
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The performance of all methods on the same months and stocks.

    Attributes:
        months: The months of outcome.
        stocks: Number of stocks in each month.
        market: Return of all of them, equally weighted, in each month.
        up_rate: Share of outcomes above 0.
        delisted: Number of predictions for delisted stocks.
        extreme: Number of outcomes above `EXTREME`.
        largest: The largest outcome, its ticker and its month in words.
        fallen: Number of outcomes below `LOSS`.
        lowest: The lowest outcome, as `largest`.
        lost: Number of further windows without an outcome, because their stock has no price in the month.
        methods: The model first.
        settings: The settings used.
    """

    # other numbers describe the data or the portfolio
    better: ClassVar[Better] = {**RANKING, "acc": "max", "ece": "min", "sharpe": "max", "sharpe_net": "max"}

    months: NDArray[np.datetime64]
    stocks: NDArray[np.int64]
    market: Floats
    up_rate: float
    delisted: int
    extreme: int
    largest: str
    fallen: int
    lowest: str
    lost: int
    methods: list[Method]
    settings: Settings

    @property
    def model(self) -> Method:
        """The reported method; the others are baselines."""
        return self.methods[0]

    def warning(self) -> str | None:
        """A warning about outcomes that look like wrong prices; None if there are none."""
        above = f"above {EXTREME:.0%} (the largest: {self.largest})"
        below = f"below {LOSS:.0%} (the lowest: {self.lowest})"
        found = [f"{_outcomes(n)} {text}" for n, text in ((self.extreme, above), (self.fallen, below)) if n]
        if not found:
            return None
        return f"{', and '.join(found)}: check these prices, because the portfolio results depend on them"

    def metrics(self) -> dict[str, float]:
        """The main numbers of the model, as metrics of a run; finite ones only."""
        names = ("acc", "auc", "auc_month", "ic", "ic_t", "ic_positive", "ece", "sharpe", "sharpe_net", "turnover")
        found = {name: self.model.numbers[name] for name in names} | {"up_rate": self.up_rate}
        return {f"test/{name}": value for name, value in found.items() if math.isfinite(value)}


def evaluate(panel: Panel, settings: Settings) -> Evaluation:
    """Evaluates predictions.

    Args:
        panel: Predictions and outcomes.
        settings: Settings of the evaluation.
    """
    known = np.isfinite(panel.outcomes)
    delisted = delisted_rows(panel.outcomes)
    model = panel.predictions[MODEL]
    return Evaluation(
        months=panel.months,
        stocks=known.sum(1),
        market=portfolios.market_returns(model, panel.outcomes),
        up_rate=float((panel.outcomes[known] > 0).mean()),
        delisted=int(delisted.sum()),
        extreme=int((panel.outcomes > EXTREME).sum()),
        largest=_named(panel, int(np.nanargmax(panel.outcomes))),
        fallen=int((panel.outcomes < LOSS).sum()),
        lowest=_named(panel, int(np.nanargmin(panel.outcomes))),
        lost=panel.lost,
        methods=[
            _method(name, panel.kinds[name], predictions, panel.outcomes, delisted, settings)
            for name, predictions in panel.predictions.items()
        ],
        settings=settings,
    )


def _outcomes(count: int) -> str:
    return f"{count:,} outcome{' lies' if count == 1 else 's lie'}"


def _named(panel: Panel, place: int) -> str:
    """An outcome with its ticker and month."""
    row, column = np.unravel_index(place, panel.outcomes.shape)
    return f"{panel.tickers[column]} in {panel.months[row]}, {100 * panel.outcomes[row, column]:,.0f} %"


def _method(
    name: str, kind: Kind, predictions: Floats, outcomes: Floats, delisted: NDArray[np.bool_], settings: Settings
) -> Method:
    known = np.isfinite(predictions) & np.isfinite(outcomes)
    said, up = predictions[known], outcomes[known] > 0
    rows = [torch.from_numpy(values) for values in (said, outcomes[known], np.nonzero(known)[0])]
    listed = torch.from_numpy(~delisted[known])
    ics = monthly_ics(*rows)
    if np.ptp(said) == 0:  # a constant does not rank the stocks of any month
        ics = ics[0][:0], ics[1][:0]
    aucs = monthly_aucs(*rows)
    ic, ic_t, positive = map(float, mean_t_positive(ics[1]))
    groups = portfolios.group_returns(predictions, outcomes, settings.deciles)
    portfolio = portfolios.long_short(predictions, outcomes, settings.deciles, settings.cost_bps)
    right = (said > (0.5 if kind == "probability" else 0.0)) == up
    bins, error = None, math.nan
    if kind == "probability":
        bins = calibration_groups(said, up)
        error = float(calibration_error(rows[0], rows[1] > 0))
    low, high = performance.sharpe_interval(portfolio.net, settings.block_months, seed=settings.seed)
    numbers = {
        "acc": math.nan if kind == "rank" else float(right.mean()),
        "auc": float(auc(*rows[:2])),
        "auc_listed": float(auc(rows[0][listed], rows[1][listed])),
        "auc_month": float(aucs[1].mean()),
        "ic": ic,
        "ic_t": ic_t,
        "ic_positive": positive,
        "spread": float((groups[:, -1] - groups[:, 0]).mean()),
        "sharpe": performance.sharpe(portfolio.gross),
        "sharpe_net": performance.sharpe(portfolio.net),
        "sharpe_low": low,
        "sharpe_high": high,
        "deflated": performance.deflated_sharpe(portfolio.net, settings.trials),
        "return": performance.annual_return(portfolio.gross),
        "return_net": performance.annual_return(portfolio.net),
        "volatility": performance.annual_volatility(portfolio.net),
        "drawdown": float(performance.drawdown(portfolio.net).min()),
        "turnover": float(portfolio.turnover[1:].mean()) if len(portfolio.turnover) > 1 else math.nan,
        "ece": error,
    }
    ic_month, auc_month = _of_months(*ics, len(outcomes)), _of_months(*aucs, len(outcomes))
    return Method(name, kind, ic_month, auc_month, groups, portfolio, bins, numbers)


def _of_months(months: Tensor, values: Tensor, count: int) -> Floats:
    """Values of some months as an array of all months, NaN elsewhere."""
    filled = np.full(count, np.nan)
    filled[months.numpy()] = values.numpy()
    return filled


def delisted_rows(outcomes: Floats) -> NDArray[np.bool_]:
    """Marks delisted stocks: the return is exactly 0 from this month to the last, for two months or more.

    Prices filled forward after the last trade look like this, and a network can detect them.

    Args:
        outcomes: `(months, tickers)`, NaN where there is none.
    """
    known = np.isfinite(outcomes)
    still = np.where(known, outcomes == 0, True)
    to_the_end: NDArray[np.bool_] = np.logical_and.accumulate(still[::-1], axis=0)[::-1] & known
    delisted: NDArray[np.bool_] = to_the_end & (to_the_end.sum(0) >= 2)
    return delisted
