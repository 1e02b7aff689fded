"""How much a stock will return, or its place among the others: regression on windows of monthly returns."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.evaluation.directions import Better
from lightning_cnn.evaluation.returns.ranking import ranking_metrics
from lightning_cnn.modules.return_module import ReturnModule


class ReturnRegressor(ReturnModule):
    """A network that gives each stock and month a score: the expected return, or a place in the ranking.

    Measured in validation and test, each epoch anew: `loss`; `up_rate`, the share of positive returns; `auc` and
    `auc_month`, `ic`, `ic_t` and `ic_positive` as of `ReturnClassifier`; and of a mean squared error also `mse` and
    `acc`, the share of the returns whose sign is right. All are exact over the whole part, on any number of processes.

    Args:
        loss: `mse`, the mean squared error of the return; `rank`, the pairwise logistic loss of RankNet (Burges et al.
            2005, section 3) over pairs of stocks in the same month, which scores only the order within each month. A
            batch must contain several stocks of a month: use `data.batch_size 1024` or more.

    Raises:
        UserError: If the network does not exist, or the data don't fit it.
    """

    better: ClassVar[Better] = {"mse": "min"}
    validated = (*ReturnModule.validated, "mse", "acc")

    def __init__(
        self, architecture: str = "returns_tcn", *, loss: Literal["mse", "rank"] = "mse", **options: Any
    ) -> None:
        super().__init__(architecture, **options)
        self.ranks = loss == "rank"
        if self.ranks:  # the sign of a score means nothing
            self.counted, self.validated, self.gives = ("loss",), ReturnModule.validated, "rank"

    def loss_of(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> Tensor:
        """The mean squared error, or that of the ranking."""
        return rank_loss(scores, outcomes, months) if self.ranks else F.mse_loss(scores, outcomes)

    def metrics_of(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
        """The metrics of a whole part, by name; all `(n,)`."""
        values = {"up_rate": (outcomes > 0).double().mean(), **ranking_metrics(scores, outcomes, months)}
        if not self.ranks:
            values["mse"] = F.mse_loss(scores.double(), outcomes.double())
            values["acc"] = self.right(scores, outcomes).double().mean()
        return values


def rank_loss(scores: Tensor, outcomes: Tensor, months: Tensor) -> Tensor:
    """The mean, over all pairs of different outcomes in the same month, of log(1 + exp(lower score - higher score)).

    Higher and lower are the scores of the better and the worse outcome. Without such a pair it is 0.

    Source: Burges et al., "Learning to Rank using Gradient Descent" (2005), section 3; for stocks: Poh, Lim, Zohren and
    Roberts, "Building Cross-Sectional Systematic Strategies by Learning to Rank" (2021).

    Args:
        scores: `(n,)`.
        outcomes: Returns, `(n,)`.
        months: Of the outcomes, int64 `(n,)`.
    """
    order = months.argsort()
    sizes = months.unique(return_counts=True)[1].tolist()
    total, pairs = scores.sum() * 0, 0
    for score, outcome in zip(scores[order].split(sizes), outcomes[order].split(sizes), strict=True):
        better, worse = torch.nonzero(outcome[:, None] > outcome, as_tuple=True)
        total = total + F.softplus(score[worse] - score[better]).sum()
        pairs += len(better)
    return total / max(1, pairs)
