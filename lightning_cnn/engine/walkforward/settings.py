"""The settings of a walk-forward."""

from lightning_cnn.config.schema import Kind
from lightning_cnn.errors import check
from lightning_cnn.evaluation.returns.measures import Settings
from lightning_cnn.evaluation.returns.month_split import MonthSplit


class WalkForwardSettings:
    """Settings of a walk-forward.

    Args:
        cost_bps: Cost of trading in the report, in basis points of its value.
        deciles: Number of groups of stocks in the report.
        block_months: Block length of the bootstrap in the report, in months.
        note: Caveat shown at the top of the report, such as a bias of the data.
        jobs: Number of folds trained in parallel, each in its own process.

    Raises:
        UserError: If a number makes no sense.
    """

    def __init__(
        self, cost_bps: float = 10.0, deciles: int = 10, block_months: int = 6, note: str | None = None, jobs: int = 1
    ) -> None:
        check("jobs", jobs, least=1)
        self.settings = Settings(cost_bps, deciles, block_months)
        self.note, self.jobs = note, jobs


WALK_FORWARD = Kind("walkforward", groups=(MonthSplit, WalkForwardSettings))
