"""Lets the finders of a configuration choose their settings before a training begins."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

from lightning_cnn.callbacks import BatchSizeFinder
from lightning_cnn.engine.finders.base import Attempt
from lightning_cnn.engine.resumption import found_words
from lightning_cnn.engine.wiring import ExperimentCLI, mendable
from lightning_cnn.errors import UserError
from lightning_cnn.resume.processes import Watch, limit_waiting, on_loopback
from lightning_cnn.resume.signals import wait_for_order
from lightning_cnn.tracking.run import Run


@dataclass
class Findings:
    """What has been found.

    Attributes:
        cli: The command line with it: that which one would type with these values and without the finders.
        values: The values, by their setting.
        figures: Pictures of the searches, by their name.
        lines: What is to be said about it, a line each.
    """

    cli: ExperimentCLI
    values: dict[str, float | int] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def find_settings(cli: ExperimentCLI, argv: list[str], run: Run | None) -> Findings:
    """Runs the finders of a configuration, once a run; the command line comes back without them.

    Each tries its values on models and data that are thrown away. What comes back is parsed and seeded anew, so that
    the training is bit for bit that with the values typed.

    Args:
        cli: The command line, its data ready.
        argv: The words that it was made of.
        run: The run that goes on, if one does.

    Raises:
        UserError: If a finder finds nothing, or comes too late.
    """
    finders = cli.finders()
    if not finders or cli.config["trainer"]["fast_dev_run"] or (run is not None and run.record.found):
        return Findings(cli.without_finders())
    if cli.checkpoint is not None:
        name = type(finders[0]).__name__
        raise UserError(
            f"--trainer.callbacks {name}: a training that goes on from a checkpoint keeps its settings; leave it out, "
            "or begin anew from the weights with --model.weights FILE"
        )
    found = Findings(cli)
    for finder in sorted(finders, key=lambda each: not isinstance(each, BatchSizeFinder)):  # the rate depends on it
        rank_zero_only(print)(f"{type(finder).__name__}: trying values of --{finder.setting}", flush=True)
        of, name = finder.setting.split(".")
        # each step has a learning rate of its own; and the many short trainings are not worth compiling for
        simple = {"steps_per_call": 1, "compile": False}
        cli.model.hparams.update({key: value for key, value in simple.items() if key in cli.model.hparams})
        attempt = Attempt(cli.model, cli.datamodule, partial(_trainer, cli), partial(_fit, cli))
        with mendable():
            result = finder.find(attempt, found.cli.config[of]["init_args"][name])
        found.values[finder.setting] = result.value
        found.lines.append(f"found        --{finder.setting} {result.value}: {result.reason}")
        if result.figure is not None:
            found.figures[finder.figure_name] = result.figure
        argv = [*argv, *found_words({finder.setting: result.value})]
        found.cli = cli = ExperimentCLI(cli.verb, argv, cli.check, cli.earlier)
        cli.check_metrics()
    found.cli.without_finders()
    return found


def _trainer(cli: ExperimentCLI, **arguments: Any) -> Trainer:
    """A trainer of the configuration that logs and keeps nothing, and ends after some steps alone."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    endless = {"max_epochs": -1, "max_time": None, "min_epochs": None, "min_steps": None}
    unmeasured = {"num_sanity_val_steps": 0, "val_check_interval": None, "check_val_every_n_epoch": 1, "profiler": None}
    trainer = cli.instantiate_trainer(**quiet, **endless, **unmeasured | arguments)
    if isinstance(cli.config["trainer"]["strategy"], str):
        limit_waiting(trainer, cli.config["timeout_minutes"])
    return trainer


def _fit(cli: ExperimentCLI, trainer: Trainer) -> None:
    if trainer.world_size > 1:
        wait_for_order()
    with Watch(lambda _: None), on_loopback(trainer):
        trainer.fit(cli.model, cli.datamodule)
