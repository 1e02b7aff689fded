"""What a walk-forward does, as it is typed or written in YAML."""

from lightning_cnn.config.schema import Kind
from lightning_cnn.errors import check
from lightning_cnn.evaluation.returns.measures import Settings
from lightning_cnn.evaluation.returns.month_split import MonthSplit


class OfTheWhole:
    """What a walk-forward does with its folds.

    Args:
        cost_bps: Of the report: cost of trading, in basis points of its value.
        deciles: Of the report: number of groups of stocks.
        block_months: Of the report: months of a block of the bootstrap.
        note: Of the report: caveat shown at its top, such as a bias of the data.
        jobs: Folds that are trained at the same time, in processes.

    Raises:
        UserError: If a number makes no sense.
    """

    def __init__(
        self, cost_bps: float = 10.0, deciles: int = 10, block_months: int = 6, note: str | None = None, jobs: int = 1
    ) -> None:
        check("jobs", jobs, least=1)
        self.settings = Settings(cost_bps, deciles, block_months)
        self.note, self.jobs = note, jobs


WALK_FORWARD = Kind("walkforward", groups=(MonthSplit, OfTheWhole))
