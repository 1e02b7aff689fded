"""Checks each monitored metric: it must exist, and the mode must match its direction."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.evaluation.directions import Better, Direction, declared, declared_as, direction_of, without_stage
from lightning_cnn.resume.checkpoints import BestCheckpoint

RATES = "lr-"  # what Lightning's LearningRateMonitor logs is called by the class of the optimizer
COUNTERS = ("epoch", "step")  # no metrics
OWN = ("lightning_cnn.", "pytorch_lightning.")  # classes of which is known what they log
LISTED = 12  # so many names are offered in a message
CHECKPOINT, CALLBACKS, SCHEDULE = "checkpoint", "trainer.callbacks", "configure_optimizers"


class WrongModeError(UserError):
    """The worse value of a metric would win."""


@dataclass(frozen=True)
class Monitor:
    """What chooses by a metric.

    Attributes:
        option: What one types for it, such as `checkpoint`.
        metric: The metric.
        mode: Which value wins; None where nothing says it.
        kind: Class of the callback.
    """

    option: str
    metric: str
    mode: Direction | None
    kind: type = object

    def __str__(self) -> str:
        """What was given, for a message."""
        return self.given("monitor", self.metric)

    def given(self, name: str, value: object) -> str:
        """An option and its value, as they were given."""
        of = "" if self.option == CHECKPOINT else f" of {self.kind.__name__}"
        return f"{self.field(name)} {value}{of}"

    def cure(self, name: str, value: str) -> str:
        """What to write instead."""
        return f"write {name}={value!r}" if self.option == SCHEDULE else f"add {self.field(name)} {value}"

    def field(self, name: str) -> str:
        """One of its settings, for a message."""
        return f"{self.option}.{name}" if self.option == SCHEDULE else f"`{self.option}.{name}`"


@dataclass(frozen=True)
class KnownMetrics:
    """What is known of the metrics of a training before it begins.

    Attributes:
        better: Which way they are better.
        names: Those that are logged, with their stage.
        complete: Whether there are no others.
        unvalidated: Why nothing is validated; empty where something is.
        declarations: The names that the user's own classes declare.
    """

    better: Better
    names: tuple[str, ...]
    complete: bool
    unvalidated: str
    declarations: Mapping[str, None]

    @classmethod
    def of(
        cls, module: LightningModule, callbacks: Iterable[Callback], unvalidated: str = "", earlier: Sequence[str] = ()
    ) -> Self:
        """What a module and its callbacks declare.

        Args:
            module: The module.
            callbacks: The callbacks.
            unvalidated: Why nothing is validated.
            earlier: What the run has logged before, where it goes on; after a validation it is all that there is.
        """
        kinds = [type(module), *{type(callback): None for callback in callbacks}]
        ours = [kind for kind in kinds if kind.__module__.startswith(OWN)]
        theirs = [base for kind in kinds for base in kind.__mro__ if not base.__module__.startswith(OWN)]
        declarations = [vars(base).get("better") for base in theirs]
        own = {name: None for found in declarations if isinstance(found, Mapping) for name in found}
        stages = ("train",) if unvalidated else ("train", "val")
        names = [f"{stage}/{name}" for stage in stages for name in getattr(module, "logged", lambda _: ())(stage)]
        names += [name for kind in kinds if issubclass(kind, Callback) for name in declared(kind) if "/" in name]
        names += [name for name in earlier if not name.startswith("test/")]
        complete = len(ours) == len(kinds) or any(name.startswith("val") for name in earlier)
        return cls(declared(*kinds), tuple(dict.fromkeys(names)), complete, unvalidated, own)

    def has(self, monitor: Monitor) -> bool | None:
        """Whether a metric will be logged; None where only the training can tell."""
        name = monitor.metric
        if name in self.names:
            return True
        if name in COUNTERS:  # Lightning hands them to its own checkpoints
            return issubclass(monitor.kind, ModelCheckpoint) and not issubclass(monitor.kind, BestCheckpoint)
        if self.unvalidated and name.startswith("val"):
            return False
        if declared_as(name, self.declarations) is not None or name.startswith(RATES):
            return None
        return False if self.complete else None

    def check(self, monitor: Monitor) -> None:
        """Refuses what would choose by no metric, or the worst value of one.

        Raises:
            WrongModeError: If its worse value would win.
            UserError: If the metric does not exist, or nothing says which value is better.
        """
        name, direction = monitor.metric, direction_of(monitor.metric, self.better)
        if self.has(monitor) is False:
            if self.unvalidated and name.startswith("val"):
                raise UserError(
                    f"{monitor}: there is no validation, because of {self.unvalidated}; "
                    f"{monitor.cure('monitor', 'train/loss')}, or another metric of the training"
                )
            raise no_such(monitor, self.names)
        if monitor.mode is None and direction is None:
            raise UserError(
                f"{monitor}: unknown whether lower or higher is better; {monitor.cure('mode', 'min')} or "
                f"{monitor.field('mode')} max, or declare better = {{{without_stage(name)!r}: 'max'}} in your module's "
                "class"
            )
        if direction is not None and monitor.mode not in (None, direction):
            raise WrongModeError(
                f"{monitor.given('mode', monitor.mode)}: {name} is best at its {direction}imum; "
                f"{monitor.cure('mode', direction)}"
            )

    def directions(self, monitors: Iterable[Monitor]) -> dict[str, Direction]:
        """Which way the metrics of the validation are better, as far as it is known, and those that are monitored."""
        names = [*self.names, "val/loss", *(f"val/{name}" for name in self.declarations if not set(name) & set("/*?["))]
        found = {name: direction_of(name, self.better) for name in names if name.startswith("val/")}
        found |= {monitor.metric: monitor.mode for monitor in monitors}
        return {name: direction for name, direction in found.items() if direction is not None}


def no_such(monitor: Monitor, names: Collection[str], when: str = "") -> UserError:
    """The error of a metric that does not exist."""
    same = [name for name in names if name.split("/")[0] == monitor.metric.split("/")[0]]
    offered = same or [*names]
    hint = did_you_mean(monitor.metric, offered) or f"; there are {', '.join(offered[:LISTED]) or 'none'}"
    return UserError(f"{monitor}: there is no such metric{when}{hint}")


def monitors_of(callbacks: Iterable[Callback]) -> list[Monitor]:
    """What callbacks monitor, each with the mode that it has."""
    found = []
    for callback in callbacks:
        metric, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        if isinstance(metric, str) and mode in ("min", "max"):
            option = CHECKPOINT if isinstance(callback, BestCheckpoint) else CALLBACKS
            found.append(Monitor(option, metric, mode, type(callback)))
    return found


class Monitors(Checkpoint):
    """Checks, when the training begins, all that monitors a metric; what is not known then, as soon as it can be.

    A module of the user's that declares nothing shows its metrics in the sanity check, else in the first epoch. A
    training that can't choose ends when that epoch is saved: in `last.ckpt` nothing is lost.

    It derives from `Checkpoint` because Lightning runs these last: all metrics of an epoch are logged then. It must be
    the first of these.

    Args:
        earlier: What the run has logged before, where it goes on.
    """

    _known: KnownMetrics

    def __init__(self, earlier: Sequence[str] = ()) -> None:
        self.earlier = earlier
        self.monitors: list[Monitor] = []
        self._seen: set[str] = set()
        self._validated = self._epoch_done = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the callbacks, those of the module too."""
        if stage != "fit":
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._known = KnownMetrics.of(pl_module, callbacks, earlier=self.earlier)
        for callback in callbacks:
            if isinstance(callback, BestCheckpoint):  # it waits by itself
                if (mode := direction_of(str(callback.monitor), self._known.better)) is not None:
                    callback.follow(mode)
            elif isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor is not None:
                _wait_for_metric(callback)
        self.monitors = monitors_of(callbacks)
        for monitor in self.monitors:
            self._known.check(monitor)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the schedules that monitor a metric."""
        for config in trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            if isinstance(scheduler, ReduceLROnPlateau) and config.monitor is not None:
                monitor = Monitor(SCHEDULE, config.monitor, scheduler.mode, type(scheduler))
                self._known.check(monitor)
                self.monitors.append(monitor)
                config.strict = False  # Lightning would end the training before the epoch is saved

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks for metrics of the validation among those that it shows."""
        shown = [name for name in trainer.callback_metrics if name.startswith("val")]
        for monitor in self._unsure() if shown else ():
            lacks = monitor.metric.startswith("val") and monitor.metric not in shown
            if lacks and declared_as(monitor.metric, self._known.declarations) is None:
                raise no_such(monitor, shown)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses unknown learning rates, and a metric of the validation where there are no validation data."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        rates = [name for callback in callbacks if isinstance(callback, LearningRateMonitor) for name in callback.lrs]
        for monitor in self._unsure() if rates else ():
            momentum_or_decay = monitor.metric.endswith(("-momentum", "-weight_decay"))
            if monitor.metric.startswith(RATES) and monitor.metric not in rates and not momentum_or_decay:
                raise no_such(monitor, rates)
        every = trainer.check_val_every_n_epoch
        empty = every == 1 and not sum(map(float, trainer.num_val_batches))
        for monitor in self.monitors if empty else ():
            if monitor.metric.startswith("val"):
                raise UserError(
                    f"{monitor}: there is no validation data; {monitor.cure('monitor', 'train/loss')}, "
                    "or another metric of the training"
                )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes what is logged."""
        if not trainer.sanity_checking:
            self._validated = True
            self._seen |= set(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes what is logged."""
        self._epoch_done = True
        self._seen |= set(trainer.callback_metrics)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a training that can't choose; the epoch before is saved."""
        self._check_seen(trainer, self._unsure())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says so where a metric has never been logged."""
        self._check_seen(trainer, self.monitors)

    def _check_seen(self, trainer: Trainer, monitors: Iterable[Monitor]) -> None:
        if not self._epoch_done or (trainer.enable_validation and not self._validated):
            return
        for monitor in monitors:
            if monitor.metric not in {*self._seen, *COUNTERS}:
                error = no_such(monitor, sorted(self._seen), " among those that were logged")
                raise UserError(f"{error}; last.ckpt has all epochs: resume with `resume` RUN and another metric")

    def _unsure(self) -> list[Monitor]:
        return [monitor for monitor in self.monitors if self._known.has(monitor) is None]


def _wait_for_metric(callback: EarlyStopping | ModelCheckpoint) -> None:
    """Lets a callback of Lightning's wait for its metric: it would end the training before the epoch is saved."""

    def when_logged(hook: Callable[..., None], trainer: Trainer, *args: Any) -> None:
        if callback.monitor in {*trainer.callback_metrics, *COUNTERS}:
            hook(trainer, *args)

    for name in ("on_validation_end", "on_train_epoch_end"):
        setattr(callback, name, partial(when_logged, getattr(callback, name)))
