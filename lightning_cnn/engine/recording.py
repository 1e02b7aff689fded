"""Writes how a run ended, whatever ended it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from lightning_cnn.config.config import Config
from lightning_cnn.config.trust import remember
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.pruning import Pruning
from lightning_cnn.engine.resumption import how_to_go_on
from lightning_cnn.errors import KilledError, StorageError, UserError
from lightning_cnn.notes import say
from lightning_cnn.resume.files import writing_into
from lightning_cnn.tracking.loggers import MetricsCSV, RunTensorBoard
from lightning_cnn.tracking.record import CONFIG, METRICS, Status
from lightning_cnn.tracking.run import RunFolder


def new_run(experiment: Experiment, command: str, folder: Path | None = None, **facts: Any) -> RunFolder:
    """Makes the run folder of an experiment, and keeps other processes from it.

    Args:
        experiment: The experiment; its configuration gets the name of it.
        command: The command that the run notes.
        folder: The run folder; default a new one in the folder of all runs.
        facts: Further entries of the record.
    """
    experiment.set(experiment=(name := experiment.name()))
    config = experiment.config
    facts["tags"] = config["tags"] or []
    if callable(describe := getattr(experiment.data, "description", None)) and (found := describe()):
        facts["data"] = found
    run = RunFolder.create(config.runs_dir, name, command, config["seed_everything"], folder, config.to_yaml(), facts)
    if folder is None:
        remember(config.runs_dir)
    return run


def open_loggers(run: RunFolder, config: Config, step: int | None = None) -> list[Logger]:
    """The loggers of a run: CSV, TensorBoard and, where it is wanted, W&B.

    Args:
        run: The run.
        config: Its configuration.
        step: Where a run goes on: what was logged at this step and later is dropped; None begins anew.
    """
    from lightning_cnn.tracking.wandb_run import start_wandb  # a second of import, on rank zero only

    loggers: list[Logger] = [MetricsCSV(run.folder / METRICS, step), RunTensorBoard(run.folder, step)]
    wandb_logger, note = start_wandb(run, config["wandb"], config["project"], config["tags"])
    if note:
        say(note)
    if wandb_logger is not None:
        wandb_logger.experiment.config.update(config.values, allow_val_change=True)
        loggers.append(wandb_logger)
    run.save()
    return loggers


@contextmanager
def recorded(run: RunFolder, verb: str, is_new: bool, pruning: Pruning | None = None) -> Iterator[None]:
    """Writes how the run ended, and lets other processes go on with it.

    A new run that ends by a user's mistake before there is anything worth keeping leaves nothing behind. Where a run
    stays that can go on, the exception gets a note that says how.

    Args:
        run: The run, which this process holds.
        verb: The verb that goes on with it.
        is_new: Whether this process has made it.
        pruning: Of a trial of a sweep: may end it early.
    """
    try:
        with writing_into(run.folder):
            yield
            reason = pruning.reason if pruning is not None else None
            status: Status = "pruned" if reason else "finished"
            _finish_wandb(run, status)
        run.finish(status, reason)
    except BaseException as stop:
        status, error = _end_by(stop)
        with suppress(Exception):  # what went wrong first is to be seen
            _finish_wandb(run, status)
        if run.lost:  # now it is another process's
            raise
        mistaken = status == "failed" and isinstance(stop, UserError)
        can_go_on = (run.folder / CONFIG).is_file()
        never_began = mistaken or (isinstance(stop, StorageError) and not can_go_on)
        if never_began and is_new and not run.record.epochs and run.discard():
            raise
        with suppress(OSError, StorageError):
            run.finish(status, error)
        if can_go_on and (mistaken or status == "interrupted"):
            stop.add_note(how_to_go_on(run, verb))
        raise
    finally:
        run.release()


def _end_by(stop: BaseException) -> tuple[Status, str | None]:
    """The status that an exception gives a run, and why."""
    if isinstance(stop, KeyboardInterrupt | SystemExit):
        return "interrupted", None
    if isinstance(stop, StorageError | KilledError):
        return "interrupted", str(stop)
    return "failed", str(stop) if isinstance(stop, UserError) else f"{type(stop).__name__}: {stop}"


def _finish_wandb(run: RunFolder, status: Status) -> None:
    if run.record.wandb.get("mode") not in (None, "disabled"):
        from lightning_cnn.tracking.wandb_run import finish_wandb

        finish_wandb(status)
