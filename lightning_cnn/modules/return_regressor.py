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
        architecture: Name of the network: `returns_cnn`, `returns_cnn_split`, `returns_tcn`, `returns_resnet`,
            `returns_ffnn`; for pictures `returns_picture` or any of timm; or `my_file.my_network` of your own.
        num_classes: Size of the output, 1; taken from the data.
        in_channels: Series in a window; taken from the data.
        window_length: Length of a window, or side of a picture; taken from the data.
        lags: How many values of a window are past months; taken from the data.
        loss: `mse`, the mean squared error of the return; `rank`, the pairwise logistic loss of RankNet (Burges et al.
            2005, section 3) over pairs of stocks in the same month: only the order within each month counts. A batch
            must have several stocks of a month: take `--data.batch_size 1024` or more.
        weights: File of weights to start from: a state dict (.pth, .safetensors), or a checkpoint of another run.
        architecture_options: Further arguments of the network, such as `{"channels": 32}`.
        optimizer: Name of an optimizer in timm: sgd (Nesterov), momentum (SGD), adam, adamw, rmsprop, ...
        lr: Learning rate.
        momentum: Momentum, for optimizers that have one.
        weight_decay: Weight decay; biases and normalization layers are left out.
        optimizer_options: Further arguments of the optimizer, such as `{"alpha": 0.9, "eps": 1e-7}`.
        schedule: Course of the learning rate over the run: none, cosine, linear, or step.
        warmup_epochs: Epochs over which the learning rate rises from near zero.
        min_lr: Learning rate at the end of the cosine or linear schedule.
        decay_epochs: Epochs between two steps of the step schedule.
        decay_rate: Factor of each step of the step schedule.
        steps_per_call: Steps of the optimizer in one call of Lightning's: the same batches and steps in less time, on
            one process. Callbacks and loggers then see each call, not each step.
        compile: Whether to compile the network with torch.compile.

    Raises:
        UserError: If the network does not exist, or the data don't fit it.
    """

    better: ClassVar[Better] = {"mse": "min"}

    def __init__(
        self,
        architecture: str = "returns_tcn",
        num_classes: int = 1,
        in_channels: int = 1,
        window_length: int = 36,
        lags: int = 24,
        loss: Literal["mse", "rank"] = "mse",
        weights: str | None = None,
        architecture_options: dict[str, Any] | None = None,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        optimizer_options: dict[str, Any] | None = None,
        schedule: Literal["none", "cosine", "linear", "step"] = "none",
        warmup_epochs: float = 0.0,
        min_lr: float = 0.0,
        decay_epochs: float = 30.0,
        decay_rate: float = 0.1,
        steps_per_call: int = 1,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.make()
        self.ranks = loss == "rank"
        if self.ranks:
            self.counted = ("loss",)  # the sign of a score means nothing

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """The metrics that are logged in a stage, without its name in front."""
        names = super().logged(stage)
        return names if stage == "train" or self.ranks else (*names, "mse", "acc")

    def loss(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> Tensor:
        """The mean squared error, or that of the ranking."""
        return rank_loss(scores, outcomes, months) if self.ranks else F.mse_loss(scores, outcomes)

    def measure(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
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
