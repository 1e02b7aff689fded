"""Finds a learning rate by a range test before the training begins."""

import math
import signal
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.engine.finders.base import Attempt, Finder, Found
from lightning_cnn.errors import UserError, check
from lightning_cnn.figures.lr_finder import range_test
from lightning_cnn.resume.signals import Interrupted, received

SLOWS = 0.9  # share of its fall after which the loss slows
TRIED = (0.125, 0.25, 0.5, 1.0, 2.0)  # rates that are tried, as shares of that


@dataclass(eq=False)
class LearningRateFinder(Finder):
    """Chooses `model.lr` by a learning rate range test (Smith 2017, section 3.3) before the training begins.

    The range test trains a copy of the model while the learning rate increases geometrically from `min_lr` to `max_lr`.
    The loss is smoothed by an exponential moving average with bias correction (Kingma and Ba 2015, section 3). The
    test ends early if the smoothed loss exceeds `divergence` times its minimum or is not finite. It determines the rate
    at which the smoothed loss has made nine tenths of its decrease, Smith's upper bound.

    The best rate differs from this bound by a factor that depends on the network. The finder therefore trains the copy
    from its initial weights for `trial_steps` steps with 1/8, 1/4, 1/2, 1 and 2 times this rate, clipped to the tested
    range, on the same batches; if the training has a schedule, each of these rates decays linearly to 0. It selects
    the rate with the lowest mean loss over the last quarter of the steps. Schedules and parameter groups scale with the
    rate, as they do with `model.lr`.

    The training is then the same as with `model.lr FOUND`. The value is written to `config.yaml` and `run.json`, the
    curve to `figures/lr_finder.png`. A resumed run keeps its rate.

    Args:
        min_lr: Learning rate of the first step.
        max_lr: Learning rate of the last step.
        num_training_steps: Steps of the sweep.
        trial_steps: Steps with each rate that is tried.
        smoothing: Share of the mean so far in the smoothed loss.
        divergence: Multiple of the least smoothed loss at which the sweep ends.

    Raises:
        UserError: If a value lies outside its range.
    """

    setting = "model.lr"
    figure_name = "lr_finder"

    min_lr: float = 1e-6
    max_lr: float = 10.0
    num_training_steps: int = 100
    trial_steps: int = 100
    smoothing: float = 0.8
    divergence: float = 4.0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        low, high, option = self.min_lr, self.max_lr, "trainer.callbacks"
        if not 0 < low < high < math.inf:
            raise UserError(f"`{option}.min_lr` {low}: it must lie between 0 and `{option}.max_lr` {high}")
        check(f"{option}.num_training_steps", self.num_training_steps, least=10)
        check(f"{option}.trial_steps", self.trial_steps, least=10)
        check(f"{option}.smoothing", self.smoothing, least=0, below=1)
        check(f"{option}.divergence", self.divergence, above=1)

    def find(self, attempt: Attempt, present: Any) -> Found:
        """Runs the range test and the trials, and selects the rate.

        Args:
            attempt: Trains copies of the model.
            present: Learning rate of the configuration; parameter groups keep their ratio to it.

        Raises:
            UserError: If no rate of the range lowers the loss.
        """
        if not present > 0:
            raise UserError(f"`model.lr` {present}: LearningRateFinder scales it: expected a number above 0")
        start = deepcopy(attempt.model.state_dict())
        rates = np.geomspace(self.min_lr, self.max_lr, self.num_training_steps)
        sweep = self._swept(attempt, rates / present)
        before, *found = sweep.losses or [math.nan]
        losses = np.array(found)
        rates = rates[: len(losses)]
        means = smooth(losses, self.smoothing)
        slows = slowing(before, rates, losses, means)
        # the noise of large rates, which a schedule takes away in the end, would make them look worse than they are
        shape = np.linspace(1, 0, self.trial_steps, endpoint=False) if sweep.scheduled else np.ones(self.trial_steps)
        trials: dict[float, float] = {}
        for share in TRIED:
            rate = float(np.clip(float(f"{share * slows:.3g}"), rates[0], rates[-1]))
            if rate not in trials:
                attempt.model.load_state_dict(start)
                seen = self._swept(attempt, shape * rate / present).losses[1:]
                last = seen[-(self.trial_steps // 4) :]
                trials[rate] = float(np.mean(last)) if len(seen) == self.trial_steps else math.inf
        value = min(trials, key=lambda rate: trials[rate])
        if not math.isfinite(trials[value]):
            raise _nothing()
        reason = f"least loss after {self.trial_steps} steps of {', '.join(f'{rate:g}' for rate in trials)}"
        return Found(value, reason, range_test(rates, losses, means, trials, value))

    def _swept(self, attempt: Attempt, factors: NDArray[np.float64]) -> "_Sweep":
        """Trains with rates of the configuration times factors; notes the loss before each step, and after the last."""
        sweep = _Sweep(factors, self.smoothing, self.divergence)
        # the loss that a step leads to is seen with the batch after it
        attempt.fit(attempt.trainer(callbacks=[sweep], max_steps=len(factors) + 1, limit_val_batches=0))
        return sweep


@dataclass(eq=False)
class _Sweep(Callback):
    """Raises the learning rate step by step and notes the losses.

    Args:
        factors: Of the learning rates of the configuration, for each step.
        smoothing: As in `smooth`.
        divergence: Multiple of the least smoothed loss at which it stops.

    Attributes:
        losses: Of each step.
        scheduled: Whether the training has a schedule of its own.
    """

    factors: NDArray[np.float64]
    smoothing: float
    divergence: float
    losses: list[float] = field(default_factory=list)
    scheduled: bool = False
    _rates: list[list[float]] = field(default_factory=list)
    _gathered: list[torch.Tensor] = field(default_factory=list)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the learning rates of the configuration.

        A warm-up may have lowered them already, and a schedule scales those of layers later than this.
        """
        self._rates = [
            [group.get("initial_lr", group["lr"]) * group.get("lr_scale", 1) for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        self.scheduled = bool(trainer.lr_scheduler_configs)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the rates of the step; a schedule has set them before.

        Raises:
            Interrupted: If a signal has come to any process.
        """
        if trainer.strategy.reduce_boolean_decision(bool(received()), all=False):
            raise Interrupted(received() or signal.SIGTERM)
        factor = self.factors[min(len(self.losses), len(self.factors) - 1)]
        for optimizer, rates in zip(trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = float(rate * factor)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the loss of a step, the mean over its batches and processes; stops at divergence."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._gathered.append(loss.detach().float())
        if trainer.global_step == len(self.losses) or not self._gathered:
            return  # gradients are gathered
        mean: Any = trainer.strategy.reduce(torch.stack(self._gathered).mean(), reduce_op="mean")
        self._gathered = []
        self.losses.append(float(mean))
        means = smooth(np.array(self.losses), self.smoothing)
        trainer.should_stop = not means[-1] <= self.divergence * np.fmin.reduce(means)


def smooth(losses: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    """The exponential mean of losses up to each step, corrected for its beginning at 0 (Kingma and Ba 2015, section 3).

    Args:
        losses: `(n,)`.
        smoothing: Share of the mean before in each mean, at least 0 and below 1.
    """
    means = np.empty(len(losses))
    mean = 0.0
    for step, loss in enumerate(losses):
        mean = smoothing * mean + (1 - smoothing) * loss
        means[step] = mean / (1 - smoothing ** (step + 1))
    return means


def slowing(
    before: float, rates: NDArray[np.float64], losses: NDArray[np.float64], means: NDArray[np.float64]
) -> float:
    """The first rate at which the smoothed loss has made nine tenths of its fall.

    It falls to its least value from the level of the first tenth of the steps, or from the loss before the first step
    where that lies far above.

    Args:
        before: The loss before the first step.
        rates: Rising, `(n,)`.
        losses: The loss after each step, `(n,)`; NaN or infinite where it has diverged.
        means: The smoothed losses, `(n,)`.

    Raises:
        UserError: If it falls by less than two standard deviations of the losses of the first steps: in nineteen of
            twenty sweeps of 100 steps mere noise falls by less.
    """
    if len(losses) < 2:
        raise _nothing()
    first = losses[: max(5, len(losses) // 10)]
    means = np.where(np.isfinite(means), means, np.inf)
    level, spread = float(np.median(first)), float(first.std())
    if before > level + 3 * spread:
        level = before
    fall = level - float(means.min())
    if not (math.isfinite(level) and fall > 2 * spread):
        raise _nothing()
    return float(rates[int((means <= level - SLOWS * fall).argmax())])


def _nothing() -> UserError:
    return UserError(
        "LearningRateFinder: no rate in the range lowers the loss; change `trainer.callbacks.min_lr` and max_lr, or "
        "give `model.lr`"
    )
