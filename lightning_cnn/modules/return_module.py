"""What the tasks on monthly returns have in common: their data, and how they are measured."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from lightning_cnn.errors import UserError, check
from lightning_cnn.evaluation.confidence import calibration_error, calibration_groups
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.evaluation.returns.ranking import RANKING, monthly_ics
from lightning_cnn.figures.collected import All, Columns, Keep
from lightning_cnn.modules.base import NetworkTask
from lightning_cnn.modules.network import takes_sequences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = tuple[Tensor, Tensor, Tensor]


class ReturnModule(NetworkTask):
    """Base class of tasks with one score per window of past months.

    A subclass has `loss_of` and `metrics_of`.

    Args:
        architecture: Name of the network: `returns_cnn`, `returns_cnn_split`, `returns_tcn`, `returns_resnet`,
            `returns_ffnn`; for pictures `returns_picture` or any of timm; or `my_file.my_network` of your own.
        num_classes: Size of the output, 1; taken from the data.
        in_channels: Series in a window; taken from the data.
        window_length: Length of a window, or side of a picture; taken from the data.
        lags: How many values of a window are past months; taken from the data.
        architecture_options: Further arguments of the network, such as `{"head_relu": true}`.

    Attributes:
        gives: What its predictions are: a `probability`, a `score` whose sign says whether it expects a rise, or a
            `rank`, of which only the order means something.

    Raises:
        UserError: If the network does not exist, or the data don't fit it.
    """

    # the share of positive returns describes the data
    better: ClassVar[Better] = {"up_rate": None, **RANKING}
    label_kind = "monthly returns"
    gives: Literal["probability", "score", "rank"] = "score"
    averages_loss = False  # it is computed of the whole part
    validated = ("loss", "up_rate", *RANKING)
    shown = ("loss", "auc", "ic")
    undefined = tuple(RANKING)  # such as without a return of one kind
    keep: ClassVar[Mapping[str, Keep]] = {"answers": All()}

    def __init__(
        self,
        architecture: str,
        *,
        num_classes: int = 1,
        window_length: int = 36,
        lags: int = 24,
        **options: Any,
    ) -> None:
        check("model.num_classes", num_classes, least=1, most=1)
        super().__init__(architecture, num_classes=num_classes, **options)
        self._sequences = takes_sequences(architecture)
        self.make_network(window_length, extra={"lags": lags} if self._sequences else None)

    def setup(self, stage: str) -> None:
        """Checks that the data fit the network.

        Raises:
            UserError: If they don't fit.
        """
        super().setup(stage)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            return
        pictures = getattr(data, "picture", False)
        if pictures == self._sequences:
            gives, takes = ("pictures", "windows") if pictures else ("windows", "pictures")
            raise UserError(
                f"{self.hparams['architecture']} takes {takes}, but the data are {gives}: add `data.picture` "
                f"{str(not pictures).lower()}, or choose another `model.architecture`"
            )

    def forward(self, windows: Tensor) -> Tensor:
        """Scores `(b,)` of windows `(b, in_channels, window_length)`, or of pictures."""
        scores: Tensor = super().forward(windows)
        return scores.squeeze(1)

    def loss_of(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> Tensor:
        """The mean loss of scores, outcomes and months of outcome, each `(n,)`."""
        raise NotImplementedError

    def right(self, scores: Tensor, outcomes: Tensor) -> Tensor:
        """Whether each score has the sign of the return, bool `(n,)`; 0 counts as negative."""
        return (scores > 0) == (outcomes > 0)

    def metrics_of(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
        """The metrics of a whole part, by name; all `(n,)`."""
        raise NotImplementedError

    def predictions(self, scores: Tensor) -> Tensor:
        """Predictions made of the scores, `(n,)`."""
        return scores

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a batch, and the number of returns with the predicted sign.

        Args:
            batch: Windows `(b, channels, length)`, outcomes `(b,)`, months of outcome `(b,)`.
        """
        windows, outcomes, months = batch
        scores = self(windows)
        self.learned(scores.detach(), outcomes)
        sums = {"acc": self.right(scores.detach(), outcomes).sum()} if "acc" in self.counted else {}
        return self.loss_of(scores, outcomes, months), sums

    def learned(self, scores: Tensor, outcomes: Tensor) -> None:
        """Called with the scores `(b,)` and outcomes `(b,)` of each training batch."""

    def make_metrics(self, stage: str) -> Columns:
        """What is measured follows from all rows."""
        return Columns("scores", "outcomes", "months")

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to what is measured; returns its `scores`, `outcomes` and `months`, each `(b,)`."""
        windows, outcomes, months = batch
        scores = self(windows).float()
        metrics.update(scores, outcomes, months)
        return {"scores": scores, "outcomes": outcomes, "months": months}

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, each without dimensions."""
        scores, outcomes, months = super().results(stage).values()
        loss = self.loss_of(scores.double(), outcomes.double(), months)
        return {"loss": loss, **self.metrics_of(scores, outcomes, months)}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predictions `(b,)`."""
        return self.predictions(self(batch[0]).float())

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Information coefficient by month, returns by decile, and of probabilities their calibration."""
        import pandas as pd

        from lightning_cnn.evaluation.returns.portfolios import group_returns
        from lightning_cnn.figures import returns_report as charts

        answers = {name: column.cpu().double() for name, column in kept["answers"].items()}
        scores, outcomes, months = answers["scores"], answers["outcomes"], answers["months"].long()
        title, up = f"{title}: {len(scores):,} returns", outcomes > 0
        values, ics = monthly_ics(scores, outcomes, months)
        if len(ics):
            dates, name = values.numpy().astype("datetime64[M]"), f"{title}, mean IC {float(ics.mean()):.4f}"
            yield "ic", charts.by_month(dates, ics.numpy(), "rank IC", 0.0, name)
        rows = pd.DataFrame({name: column.numpy() for name, column in answers.items()})
        tables = rows.assign(place=rows.groupby("months").cumcount()).pivot(index="months", columns="place")
        deciles = group_returns(tables["scores"].to_numpy(), tables["outcomes"].to_numpy(), 10)
        yield "deciles", charts.groups(deciles, float(deciles.mean()), title)
        if "probabilities" in answers:
            chance = answers["probabilities"]
            curves = {"model": calibration_groups(chance.numpy(), up.numpy())}
            title = f"{title}, ECE {float(calibration_error(chance, up)):.4f}"
            yield "calibration", charts.calibration(curves, float(up.double().mean()), title)
