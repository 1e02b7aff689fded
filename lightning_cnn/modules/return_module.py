"""What the tasks on monthly returns have in common: how they step, and how they are measured."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from lightning_cnn.errors import UserError, check
from lightning_cnn.evaluation.confidence import calibration_error, calibration_groups
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.evaluation.returns.ranking import RANKING, monthly_ics
from lightning_cnn.figures.collected import All, Columns, Keep
from lightning_cnn.modules.averaging import count_step
from lightning_cnn.modules.base import NetworkTask
from lightning_cnn.modules.network import takes_sequences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = tuple[Tensor, Tensor, Tensor]


class ReturnModule(NetworkTask):
    """Base class of tasks with one score per window of past months.

    Several steps of the optimizer may be made in one call of Lightning's: the loader hands over so many batches at
    once, and the module trains on one after the other. Batches, steps and results are the same; what Lightning and its
    callbacks do around a step, which takes longer than a step of a small network, is done once a call. Loggers then
    count calls.

    A subclass has `loss_of` and `metrics_of`.

    Args:
        architecture: Name of the network: `returns_cnn`, `returns_cnn_split`, `returns_tcn`, `returns_resnet`,
            `returns_ffnn`; for pictures `returns_picture` or any of timm; or `my_file.my_network` of your own.
        num_classes: Size of the output, 1; taken from the data.
        in_channels: Series in a window; taken from the data.
        window_length: Length of a window, or side of a picture; taken from the data.
        lags: How many values of a window are past months; taken from the data.
        architecture_options: Further arguments of the network, such as `{"head_relu": true}`.
        steps_per_call: Optimizer steps per training step of Lightning: the same batches and steps in less time, in one
            process. Callbacks and loggers are called once per call, not once per step.

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
        steps_per_call: int = 1,
        **options: Any,
    ) -> None:
        check("model.num_classes", num_classes, least=1, most=1)
        check("model.steps_per_call", steps_per_call, least=1)
        super().__init__(architecture, num_classes=num_classes, **options)
        self._sequences = takes_sequences(architecture)
        self.make_network(window_length, extra={"lags": lags} if self._sequences else None)

    def setup(self, stage: str) -> None:
        """Checks that the data fit the network, and requests the number of batches per load.

        Raises:
            UserError: If they don't fit, or there are several processes, which only share gradients step by step.
        """
        super().setup(stage)
        data, steps = self.trainer.datamodule, self.hparams["steps_per_call"]  # type: ignore[attr-defined]
        if data is None:
            return
        pictures = getattr(data, "picture", False)
        if pictures == self._sequences:
            gives, takes = ("pictures", "windows") if pictures else ("windows", "pictures")
            raise UserError(
                f"{self.hparams['architecture']} takes {takes}, but the data are {gives}: add `data.picture` "
                f"{str(not pictures).lower()}, or choose another `model.architecture`"
            )
        if stage == "fit":
            self._check_trainer()
            self.automatic_optimization = steps == 1
            data.batches_per_load = steps

    def _check_trainer(self) -> None:
        """What Lightning would do around each step can't be had where it makes one call for several."""
        trainer, steps = self.trainer, self.hparams["steps_per_call"]
        asked = {
            "trainer.devices": trainer.world_size > 1,  # gradients are shared between processes in a call's first step
            "trainer.gradient_clip_val": bool(trainer.gradient_clip_val),
            "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches > 1,
            "trainer.precision": getattr(trainer.precision_plugin, "scaler", None) is not None,
        }
        for option in [option for option, wanted in asked.items() if wanted and steps > 1]:
            raise UserError(
                f"`{option}` can't be combined with `model.steps_per_call` {steps}: remove it, or set that to 1"
            )

    def updates(self) -> tuple[float, int]:
        """Number of optimizer steps in the run and in an epoch.

        Raises:
            UserError: If the run has no end.
        """
        updates, calls = super().updates()
        if self.automatic_optimization:
            return updates, calls
        trainer, loader = self.trainer, cast(Any, self.trainer.train_dataloader)
        each = calls * self.hparams["steps_per_call"]
        if calls == len(loader):  # not cut short by --trainer.limit_train_batches
            each = batch_count(len(loader.dataset), trainer.datamodule.batch_size)  # type: ignore[attr-defined]
        total = math.inf if trainer.max_epochs == -1 else each * max(1, trainer.max_epochs or 1)
        return (min(total, trainer.max_steps) if trainer.max_steps >= 0 else total), each

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch; several batches take one step each and give their mean loss.

        Args:
            batch: Windows `(b, channels, length)`, outcomes `(b,)`, months of outcome `(b,)`.
            batch_idx: Number of the batch, or of the load of several, in its epoch.
        """
        if self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        loss, sums, rows = self._steps(batch)
        self.count(loss, sums, rows, batch_idx)
        return loss

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

    def _steps(self, load: Batch) -> tuple[Tensor, dict[str, Tensor], int]:
        """One step of the optimizer on each batch of a load; Lightning's hooks take part in the last one alone.

        Returns:
            The mean loss before each step, the sums of all batches, and how many rows these have.
        """
        optimizer: Any = self.optimizers()
        schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        size, most = self.trainer.datamodule.batch_size, self.trainer.max_steps  # type: ignore[attr-defined]
        batches = [*zip(*(split(part, size) for part in load), strict=True)]
        batches = batches if most < 0 else batches[: max(1, most - self.global_step)]
        losses: list[Tensor] = []
        totals: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            loss, sums = self.loss(batch)
            optimizer.optimizer.zero_grad()
            if number == len(batches):
                self.manual_backward(loss)
                optimizer.step()
            else:
                loss.backward()
                optimizer._on_before_step()  # these two count it
                optimizer.optimizer.step()
                optimizer._on_after_step()
                count_step(self.trainer, self)
            for schedule in schedules:
                self.lr_scheduler_step(schedule, None)
            losses.append(loss.detach() * len(batch[0]))
            totals = {name: totals[name] + value if totals else value for name, value in sums.items()}
        rows = sum(len(batch[0]) for batch in batches)
        return torch.stack(losses).sum() / rows, totals, rows


def batch_count(rows: int, size: int) -> int:
    """Number of batches that `BatchSampler` makes of so many rows: a last one of a single row joins the one before."""
    whole, rest = divmod(rows, size)
    return max(1, whole + (rest > 1))


def split(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """The batches of a load."""
    return torch.tensor_split(rows, [size * number for number in range(1, batch_count(len(rows), size))])
