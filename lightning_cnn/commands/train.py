"""`train` (fit, then test the best checkpoint, then print the result) and `fit` (without the test)."""

import os
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.model_helpers import is_overridden

from lightning_cnn import plots
from lightning_cnn.callbacks import Figures, FiniteLoss, Preemption, Pruning, ResumedEpoch, StepSeed, Vitals
from lightning_cnn.callbacks.last_checkpoint import LOGGED
from lightning_cnn.commands.finding import Findings, find_settings
from lightning_cnn.commands.metric_table import metric_table
from lightning_cnn.commands.resumption import check_unchanged, finished_epochs, is_done, resumed_run
from lightning_cnn.datamodules import ImageDataModule, ReturnDataModule
from lightning_cnn.errors import UserError
from lightning_cnn.interruption import Interrupted, stop_if_received, wait_for_order
from lightning_cnn.processes import Watch, is_loss_of_a_process, limit_waiting
from lightning_cnn.tracking.checkpoint import AtomicCheckpointIO
from lightning_cnn.tracking.loggers import MONITORED, MetricsCSV, RunTensorBoard, log_figure, log_settings
from lightning_cnn.tracking.recorder import RunRecorder
from lightning_cnn.tracking.run import CONFIG, METRICS, RUN_FOLDER, Run, Status, default_runs_dir, sweep
from lightning_cnn.tracking.settings import flatten
from lightning_cnn.wiring import ExperimentCLI, experiment_name, mendable


def main(verb: str, argv: list[str]) -> int:
    """Trains, and prints the result. Returns the exit code."""
    train(verb, argv)
    return 0


def train(verb: str, argv: list[str], pruning: Pruning | None = None, folder: Path | None = None) -> Run | None:
    """Trains.

    Args:
        verb: `train` or `fit`.
        argv: The words after it.
        pruning: Of a trial of a sweep: may end it early. A trial prints no result.
        folder: The run folder, made where it is missing and gone on with where it is there; default that of the
            environment's `LIGHTNING_CNN_RUN`, if any.

    Returns:
        The run; None in the processes that have none, and after a `fast_dev_run`.
    """
    command = shlex.join(["lightning-cnn", verb, *argv])
    if folder is None and os.environ.get(RUN_FOLDER):
        folder = Path(os.environ[RUN_FOLDER])
    resumed, argv = resumed_run(argv, _rank(), folder)
    cli = ExperimentCLI(verb, argv, None if resumed is None else partial(check_unchanged, resumed))
    done = resumed is not None and check_done(cli, resumed, once_more=folder is not None)
    stop_if_received()
    predicted = "--prices FILE" if isinstance(cli.datamodule, ReturnDataModule) else "--images FILE_OR_FOLDER"
    if resumed is not None and done and resumed.status == "finished":  # a job that was started once more
        if _rank() == 0:
            print(_result(resumed, predicted))
        return resumed
    _prepare(cli, verb)
    stop_if_received()
    findings = find_settings(cli, argv, resumed)
    cli = findings.cli
    if cli.config["trainer"]["fast_dev_run"]:
        _fit_and_test(
            cli, "fit", cli.instantiate_trainer(logger=False, callbacks=[*cli.user_callbacks(), *cli.bar()]), None
        )
        return None
    ckpt_path = cli.config["ckpt_path"]
    wait_for_order()
    preemption = Preemption(cli.last, cli.checkpoints.every_n_minutes, cli.config["timeout_minutes"])
    if _rank() != 0:  # the run folder, the record and the loggers are rank zero's
        with _together(preemption), _naming_the_missing(preemption):
            _fit_and_test(cli, verb, _trainer(cli, _callbacks(cli, Path("."), preemption), [DummyLogger()]), ckpt_path)
        return None
    run = _open_run(cli, argv, command, resumed, folder, findings)
    with (
        _together(preemption),
        recorded(run, resumed is None, pruning),
        _naming_the_missing(preemption),
        Watch(partial(run.finish, "failed")),
    ):
        loggers = _loggers(cli, run, resumed)
        callbacks = [*_callbacks(cli, run.folder, preemption), *([pruning] if pruning else [])]
        trainer = _trainer(cli, [*callbacks, RunRecorder(run, cli.best)], loggers)
        for name, figure in findings.figures.items():
            log_figure(trainer, figure, run.folder / "figures" / f"{name}.png")
        _fit_and_test(cli, verb, trainer, ckpt_path)
        log_settings(trainer.loggers, flatten(cli.resolved()), run.record.metrics, run.record.best)
        for logger in trainer.loggers:
            logger.save()
    if pruning is None:
        print(_result(run, predicted))
    return run


def check_done(cli: ExperimentCLI, run: Run, once_more: bool = False) -> bool:
    """Whether the training of a run is done.

    Args:
        cli: The command line.
        run: The run.
        once_more: Whether the same command has been given once more, as for a job that is started again.

    Raises:
        UserError: If a finished run is asked to go on, but not for more epochs.
    """
    if cli.checkpoint is None:
        return False
    finished = run.status == "finished"
    max_epochs, max_steps = cli.config["trainer"]["max_epochs"], cli.config["trainer"]["max_steps"]
    # a pruned trial that someone goes on with has come to no end of its own
    early_end_counts = run.status != "pruned" and (not finished or max_epochs == _epochs_before(run))
    done = is_done(cli.checkpoint, max_epochs, max_steps, go_on=early_end_counts)
    if done and finished and not once_more:
        raise _enough(str(run.folder), cli.checkpoint)
    cli.last.goes_further = not done
    return done


def _epochs_before(run: Run) -> int | None:
    content = yaml.safe_load((run.folder / CONFIG).read_text())
    return content["trainer"].get("max_epochs")  # type: ignore[no-any-return]


def _enough(what: str, checkpoint: dict[str, Any]) -> UserError:
    done = finished_epochs(checkpoint)
    return UserError(f"{what} has its {done} epochs: to train on, add --trainer.max_epochs {2 * done}")


def _prepare(cli: ExperimentCLI, verb: str) -> None:
    """Reads our data sets before anything is written: bad data leaves nothing behind, and costs no training."""
    if _rank() == 0 and isinstance(cli.datamodule, ImageDataModule | ReturnDataModule):
        cli.datamodule.prepare_data()
        with mendable():
            cli.datamodule.setup("fit")
            if verb == "train" and "test" in cli.datamodule.stages:
                cli.datamodule.setup("test")


def _open_run(
    cli: ExperimentCLI, argv: list[str], command: str, resumed: Run | None, folder: Path | None, findings: Findings
) -> Run:
    """Makes the run folder, or goes on with one, and writes the configuration into it."""
    if resumed is None:
        trainer = cli.config["trainer"]
        if cli.checkpoint is not None and is_done(cli.checkpoint, trainer["max_epochs"], trainer["max_steps"], False):
            raise _enough(cli.config["ckpt_path"], cli.checkpoint)
        runs_dir = Path(cli.config["runs_dir"]) if cli.config["runs_dir"] else default_runs_dir()
        run = Run.create(runs_dir, experiment_name(cli, argv), command, cli.config["seed_everything"], folder)
        cli.config["experiment"] = run.record.name
    else:
        run = resumed
        path = run.folder / CONFIG
        if path.is_file():
            before = yaml.safe_load(path.read_text())
            cli.config["ckpt_path"], cli.config["experiment"] = before.get("ckpt_path"), before.get("experiment")
        run.resume(command)
        sweep(run.folder)
    for name, figure in findings.figures.items():  # before the record says that they are there
        plots.save(figure, run.folder / "figures" / f"{name}.png")
    run.record.found |= findings.values
    run.save()
    for line in findings.lines:
        print(line)
    run.write_config(yaml.safe_dump(cli.resolved(), sort_keys=False))
    return run


def _loggers(cli: ExperimentCLI, run: Run, resumed: Run | None) -> list[Logger]:
    from lightning_cnn.tracking.wandb_run import start_wandb  # a second of import, on rank zero only

    step = None
    if resumed is not None:  # the file may be one of another kind than last.ckpt
        state = cli.checkpoint or {LOGGED: 0}
        step = int(state.get(LOGGED, state.get("global_step", 0)))
    loggers: list[Logger] = [MetricsCSV(run.folder / METRICS, step), RunTensorBoard(run.folder, step)]
    wandb_logger, note = start_wandb(run, cli.config["wandb"], cli.config["project"], cli.config["tags"])
    if note:
        print(note)
    if wandb_logger is not None:
        wandb_logger.experiment.config.update(cli.resolved(), allow_val_change=True)
        for name, mode in (MONITORED | {str(cli.best.monitor): cli.best.mode}).items():
            wandb_logger.experiment.define_metric(name, step_metric="trainer/global_step", summary=f"{mode},last")
        loggers.append(wandb_logger)
    run.save()
    return loggers


def _callbacks(cli: ExperimentCLI, folder: Path, preemption: Preemption) -> list[Callback]:
    cli.best.dirpath = cli.last.dirpath = str((folder / "checkpoints").absolute())
    names = {type(callback).__name__ for callback in cli.user_callbacks()}
    seed = cli.config["seed_everything"]
    first: list[Callback] = [cli.last, preemption, *([] if seed is False else [StepSeed(seed)])]
    ours: list[Callback] = [FiniteLoss(), Vitals(), Figures(folder), cli.best, *cli.bar()]
    if "LearningRateMonitor" not in names:
        ours.append(LearningRateMonitor())
    return [*first, *cli.user_callbacks(), *ours, ResumedEpoch()]


def _trainer(cli: ExperimentCLI, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    users = cli.config_init["trainer"]["logger"]
    extra = [] if not users or users is True else users if isinstance(users, list) else [users]
    plugins = cli.config_init["trainer"]["plugins"] or []
    trainer = cli.instantiate_trainer(
        callbacks=callbacks,
        logger=[*loggers, *extra],
        plugins=[*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()],
    )
    if trainer.world_size > 1 and cli.config["seed_everything"] is False:
        raise UserError("--seed_everything false: several processes must draw the same order of images; give a number")
    if isinstance(cli.config["trainer"]["strategy"], str):
        limit_waiting(trainer, cli.config["timeout_minutes"])
    return trainer


def _fit_and_test(cli: ExperimentCLI, verb: str, trainer: Trainer, ckpt_path: str | None) -> None:
    try:
        with mendable():
            trainer.fit(cli.model, cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
            stages = getattr(cli.datamodule, "stages", ("test",))
            if verb == "train" and "test" in stages and is_overridden("test_step", cli.model):
                best = cli.best.best_model_path or None
                trainer.test(cli.model, cli.datamodule, ckpt_path=best, weights_only=True, verbose=False)
    except SystemExit as stop:
        # Lightning turns a KeyboardInterrupt of a callback into an exit
        if trainer.interrupted and not isinstance(stop, Interrupted):
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _together(preemption: Preemption) -> Iterator[None]:
    """Lets all processes end at the same time, when the end of the run is written down."""
    try:
        yield
    except Interrupted:
        preemption.leave_together()
        raise


@contextmanager
def _naming_the_missing(preemption: Preemption) -> Iterator[None]:
    """Says which process is gone or does not answer."""
    try:
        yield
    except RuntimeError as error:
        if not is_loss_of_a_process(error):
            raise
        raise RuntimeError(f"a process is gone or does not answer: {preemption.missing()}") from error


@contextmanager
def recorded(run: Run, is_new: bool, pruning: Pruning | None = None) -> Iterator[None]:
    """Writes how the run ended; a new run that ends by a user's mistake before its first epoch leaves nothing."""
    status: Status = "finished"
    error, mistaken = None, False
    try:
        with run.alive():
            yield
        if pruning is not None and pruning.reason:
            status, error = "pruned", pruning.reason
    except UserError as mistake:
        status, error, mistaken = "failed", str(mistake), True
        raise
    except (KeyboardInterrupt, SystemExit):
        status = "interrupted"
        raise
    except BaseException as crash:
        status, error = "failed", f"{type(crash).__name__}: {crash}"
        raise
    finally:
        _finish_wandb(run, status)
        if mistaken and is_new and run.record.epochs == 0:
            shutil.rmtree(run.folder)
        else:
            run.finish(status, error)


def _finish_wandb(run: Run, status: Status) -> None:
    if run.record.wandb.get("mode") not in (None, "disabled"):
        from lightning_cnn.tracking.wandb_run import finish_wandb

        finish_wandb(status)


def _rank() -> int:
    """Which process this is: Lightning reads it from the environment before any process group exists."""
    return int(getattr(rank_zero_only, "rank", 0))


def _result(run: Run, predicted: str) -> str:
    record = run.record
    seconds = record.seconds
    lines = [metric_table(record.metrics)] if record.metrics else []
    best = record.best
    if best:
        lines.append(f"best epoch   {best['epoch']} (counted from 0), {best['metric']} {best['value']:.4f}")
    lines += [
        f"epochs       {record.epochs}",
        f"parameters   {record.parameters:,}",
        f"time         {time.strftime('%H:%M:%S', time.gmtime(seconds))} on {record.device}",
        f"run folder   {run.folder}",
        *([f"W&B          {record.wandb['url']}"] if record.wandb.get("url") else []),
        "",
        "next: lightning-cnn compare    lightning-cnn dashboard    "
        f"lightning-cnn predict --ckpt_path {run.folder}/checkpoints/best.ckpt {predicted}",
    ]
    return "\n".join(lines)
