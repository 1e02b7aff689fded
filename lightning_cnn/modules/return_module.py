"""What the modules that learn from monthly returns have in common: how they step, and how they are measured."""

import math
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.evaluation.returns.ranking import RANKING
from lightning_cnn.modules.averaging import count_step
from lightning_cnn.modules.network import takes_sequences
from lightning_cnn.modules.network_module import NetworkModule
from lightning_cnn.modules.return_metrics import SeenRows

Batch = tuple[Tensor, Tensor, Tensor]


class ReturnModule(NetworkModule):
    """A network that gives each window of past months one score.

    Several steps of the optimizer may be made in one call of Lightning's: the loader hands over so many batches at
    once, and the module trains on one after the other. Batches, steps and results are the same; what Lightning and its
    callbacks do around a step, which takes longer than a step of a small network, is done once a call. Loggers then
    count calls.

    A subclass saves its hyperparameters, calls `make`, and has `loss`, `right` and `measure`.
    """

    # the share of positive returns describes the data
    better: ClassVar[Better] = {"up_rate": None, **RANKING}

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """The metrics that are logged in a stage, without its name in front."""
        return super().logged(stage) if stage == "train" else ("loss", "up_rate", *RANKING)

    def make(self) -> None:
        """Makes the network and what measures it.

        Raises:
            UserError: If the data are no returns, or the network does not exist or does not fit them.
        """
        hparams = self.hparams
        if hparams["num_classes"] != 1:
            raise UserError(
                f"{type(self).__name__} learns from monthly returns, but these data have {hparams['num_classes']} "
                "classes: take --data MonthlyReturns or SyntheticReturns, or --model ImageClassifier"
            )
        if hparams["steps_per_call"] < 1:
            raise UserError(f"--model.steps_per_call {hparams['steps_per_call']}: it must be at least 1")
        architecture, options = hparams["architecture"], hparams["architecture_options"] or {}
        self._sequences = takes_sequences(architecture)
        if self._sequences:
            options = {"lags": hparams["lags"], **options}
        size = hparams["window_length"]
        self.make_network(architecture, 1, hparams["in_channels"], size, False, hparams["weights"], options, False)
        self.seen = nn.ModuleDict({stage: SeenRows() for stage in ("val", "test")})

    def setup(self, stage: str) -> None:
        """Looks whether the data are what the network takes, and says how many batches are wanted at once.

        Raises:
            UserError: If they don't fit, or there are several processes, which only share gradients step by step.
        """
        super().setup(stage)
        data, steps = self.trainer.datamodule, self.hparams["steps_per_call"]  # type: ignore[attr-defined]
        if data is None:
            return
        if not hasattr(data, "lags"):
            raise UserError(
                f"{type(self).__name__} learns from monthly returns, and {type(data).__name__} has none: "
                "take --data MonthlyReturns or SyntheticReturns"
            )
        pictures = getattr(data, "picture", False)
        if pictures == self._sequences:
            gives, takes = ("pictures", "windows") if pictures else ("windows", "pictures")
            raise UserError(
                f"{self.hparams['architecture']} takes {takes}, and the data give {gives}: "
                f"add --data.picture {str(not pictures).lower()}, or choose another --model.architecture"
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
                f"--{option} does not go with --model.steps_per_call {steps}: leave it out, or set that to 1"
            )

    def updates(self) -> tuple[float, int]:
        """How often the weights change: in the whole run (infinite where it has no end), and in an epoch."""
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

    def loss(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> Tensor:
        """The mean loss of scores, outcomes and months of outcome, each `(n,)`."""
        raise NotImplementedError

    def right(self, scores: Tensor, outcomes: Tensor) -> Tensor:
        """Which scores say rightly whether the return is positive, bool `(n,)`; not above 0 is a fall."""
        return (scores > 0) == (outcomes > 0)

    def measure(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
        """The metrics of a whole part, by name; all `(n,)`."""
        raise NotImplementedError

    def predictions(self, scores: Tensor) -> Tensor:
        """What the scores mean to a user, `(n,)`."""
        return scores

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch; of several batches one step each, and their mean loss.

        Args:
            batch: Windows `(b, channels, length)`, outcomes `(b,)`, months of outcome `(b,)`.
            batch_idx: Number of the batch, or of the load of several, in its epoch.
        """
        if self.automatic_optimization:
            scores = self(batch[0])
            loss = self.loss(scores, *batch[1:])
        else:
            batch, scores, loss = self._steps(batch)
        self.count(loss, self.right(scores.detach(), batch[1]), batch_idx)
        self.learned(scores.detach(), batch[1])
        return loss

    def learned(self, scores: Tensor, outcomes: Tensor) -> None:
        """Called with the scores `(b,)` and outcomes `(b,)` of each training batch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the validation part; see `_measure`."""
        return self._measure(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the test part; see `_measure`."""
        return self._measure(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predictions `(b,)`."""
        return self.predictions(self(batch[0]).float())

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the whole validation part."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the whole test part."""
        self._log_metrics("test")

    def _steps(self, load: Batch) -> tuple[Batch, Tensor, Tensor]:
        """One step of the optimizer on each batch of a load; Lightning's hooks take part in the last one alone.

        Returns:
            What was learned from, the scores of it before each step, and the mean loss.
        """
        optimizer: Any = self.optimizers()
        schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        size, most = self.trainer.datamodule.batch_size, self.trainer.max_steps  # type: ignore[attr-defined]
        batches = [*zip(*(split(part, size) for part in load), strict=True)]
        batches = batches if most < 0 else batches[: max(1, most - self.global_step)]
        found, losses = [], []
        for number, (windows, outcomes, months) in enumerate(batches, start=1):
            scores = self(windows)
            loss = self.loss(scores, outcomes, months)
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
            found.append(scores.detach())
            losses.append(loss.detach() * len(scores))
        joined = torch.cat(found)
        windows, outcomes, months = (part[: len(joined)] for part in load)
        return (windows, outcomes, months), joined, torch.stack(losses).sum() / len(joined)

    def _measure(self, batch: Batch, stage: str) -> dict[str, Tensor]:
        """Adds a batch to what is measured; returns its `scores`, `outcomes` and `months`, each `(b,)`."""
        windows, outcomes, months = batch
        scores = self(windows).float()
        self.seen[stage].update(scores, outcomes, months)  # type: ignore[operator]
        return {"scores": scores, "outcomes": outcomes, "months": months}

    def _log_metrics(self, stage: str) -> None:
        scores, outcomes, months = self.seen[stage].compute()  # type: ignore[operator]
        values = {"loss": self.loss(scores.double(), outcomes.double(), months)}
        values |= self.measure(scores, outcomes, months)
        # the values are equal on all processes already; sync_dist only says so to Lightning
        for name, value in values.items():
            if name in RANKING and value.isnan() and not self.trainer.sanity_checking:
                continue  # not defined on these months; the sanity check only shows which metrics there are
            shown = stage == "val" and name in ("loss", "auc")
            self.log(f"{stage}/{name}", value.float(), prog_bar=shown, sync_dist=True)
        self.seen[stage].reset()  # type: ignore[operator]


def batch_count(rows: int, size: int) -> int:
    """Number of batches that `BatchSampler` makes of so many rows: a last one of a single row joins the one before."""
    whole, rest = divmod(rows, size)
    return max(1, whole + (rest > 1))


def split(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """The batches of a load."""
    return torch.tensor_split(rows, [size * number for number in range(1, batch_count(len(rows), size))])
