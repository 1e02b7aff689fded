"""What is remembered of an epoch to measure it."""

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class SeenRows(Metric):
    """The scores, outcomes and months of an epoch, of all processes together; what is measured follows from them."""

    full_state_update = False

    scores: list[Tensor]
    outcomes: list[Tensor]
    months: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("scores", "outcomes", "months"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> None:
        """Adds a batch, each `(b,)`."""
        self.scores.append(scores)
        self.outcomes.append(outcomes)
        self.months.append(months)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, outcomes and months, each `(n,)`."""
        return dim_zero_cat(self.scores), dim_zero_cat(self.outcomes), dim_zero_cat(self.months)
