"""Lets the finders of a configuration choose their settings before a training begins."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.finders.base import Attempt
from lightning_cnn.engine.finders.batch_size import BatchSizeFinder
from lightning_cnn.engine.trainer import SILENT
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError
from lightning_cnn.notes import say
from lightning_cnn.resume.processes import on_loopback, watching
from lightning_cnn.resume.signals import defer_signals
from lightning_cnn.tracking.run import RunFolder


@dataclass
class Findings:
    """What has been found.

    Attributes:
        experiment: The experiment with it, as if one had given these values and no finders.
        values: The values, by their setting.
        figures: Pictures of the searches, by their name.
        lines: What is to be said about it, a line each.
    """

    experiment: Experiment
    values: dict[str, float | int] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def find_settings(experiment: Experiment, run: RunFolder | None) -> Findings:
    """Runs the finders of an experiment, once a run; it comes back without them.

    Each tries its values on models and data that are thrown away. What comes back is parsed and seeded anew, so that
    the training is bit for bit that with the values given.

    Args:
        experiment: The experiment, its data ready.
        run: The run that goes on, if one does.

    Raises:
        UserError: If a finder finds nothing, or comes too late.
    """
    finders = experiment.finders()
    known = run is not None and any(finder.setting in run.record.found for finder in finders)
    if not finders or experiment.config["trainer"]["fast_dev_run"] or known:
        return Findings(experiment.without_finders())
    if experiment.config.checkpoint is not None:
        name = type(finders[0]).__name__
        raise UserError(
            f"`trainer.callbacks` {name}: training resumed from a checkpoint keeps its settings; remove it, or start "
            "a new run with `model.weights` FILE"
        )
    found = Findings(experiment)
    for finder in sorted(finders, key=lambda each: not isinstance(each, BatchSizeFinder)):  # the rate depends on it
        rank_zero_only(say)(f"{type(finder).__name__}: trying values of `{finder.setting}`")
        of, name = finder.setting.split(".")
        if "compile" in experiment.model.hparams:  # the many short trainings are not worth it
            experiment.model.hparams["compile"] = False
        attempt = Attempt(experiment.model, experiment.data, partial(_trainer, experiment), partial(_fit, experiment))
        with user_errors():
            result = finder.find(attempt, experiment.config[of]["init_args"][name])
        found.values[finder.setting] = result.value
        found.lines.append(f"found        `{finder.setting}` {result.value}: {result.reason}")
        if result.figure is not None:
            found.figures[finder.figure_name] = result.figure
        experiment = Experiment(experiment.config.override({finder.setting: result.value}), run)
        experiment.check()
        found.experiment = experiment
    experiment.without_finders()
    return found


def _trainer(experiment: Experiment, **arguments: Any) -> Trainer:
    """A trainer of the configuration that logs and keeps nothing, and ends after some steps alone."""
    endless = {"max_epochs": -1, "max_time": None, "min_epochs": None, "min_steps": None}
    unmeasured = {"num_sanity_val_steps": 0, "val_check_interval": None, "check_val_every_n_epoch": 1, "profiler": None}
    return experiment.trainer(**SILENT, **endless, **unmeasured | arguments)


def _fit(experiment: Experiment, trainer: Trainer) -> None:
    if trainer.world_size > 1:
        defer_signals()
    with watching(lambda _: None), on_loopback(trainer):
        trainer.fit(experiment.model, experiment.data)
