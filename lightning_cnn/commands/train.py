"""`train` (fit, then test the best checkpoint, then print the result) and `fit` (without the test)."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
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

from lightning_cnn.callbacks import Figures, FiniteLoss, Monitors, Preemption, Pruning, ResumedEpoch, StepSeed, Vitals
from lightning_cnn.cli.metric_table import STAGES, metric_table
from lightning_cnn.config.trust import remember
from lightning_cnn.datamodules import ImageDataModule, ReturnDataModule
from lightning_cnn.engine.finding import Findings, find_settings
from lightning_cnn.engine.resumption import check_unchanged, how_to_go_on, is_done, resumed_run, trained_epochs
from lightning_cnn.engine.wiring import ExperimentCLI, experiment_name, mendable
from lightning_cnn.errors import KilledError, StorageError, UserError
from lightning_cnn.evaluation.directions import Direction
from lightning_cnn.modules.averaging import AverageWeights
from lightning_cnn.regular_files import read_regular
from lightning_cnn.resume.files import writing_into
from lightning_cnn.resume.last_checkpoint import LOGGED, NAME
from lightning_cnn.resume.leftovers import remove_halves
from lightning_cnn.resume.processes import Watch, is_loss_of_a_process, limit_waiting, on_loopback
from lightning_cnn.resume.signals import Interrupted, stop_if_received, wait_for_order
from lightning_cnn.tracking.checkpoint import AtomicCheckpointIO
from lightning_cnn.tracking.loggers import MetricsCSV, RunTensorBoard, log_figure, log_settings
from lightning_cnn.tracking.recorder import RunRecorder
from lightning_cnn.tracking.run import CONFIG, METRICS, Run, Status, default_runs_dir, given_folder
from lightning_cnn.tracking.settings import flatten


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
    folder = folder or given_folder()
    resumed, argv = resumed_run(argv, _rank(), folder)
    with nullcontext() if resumed is None or _rank() else resumed.held():
        return _train(verb, argv, command, resumed, pruning, folder)


def _train(
    verb: str, argv: list[str], command: str, resumed: Run | None, pruning: Pruning | None, folder: Path | None
) -> Run | None:
    cli = ExperimentCLI(verb, argv, None if resumed is None else partial(check_unchanged, resumed), resumed)
    cli.check_metrics()
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
        recorded(run, verb, resumed is None, pruning),
        _naming_the_missing(preemption),
        Watch(partial(run.finish, "failed")),
    ):
        run.write_config(_as_yaml(cli))
        for line in findings.lines:
            print(line)
        directions = cli.chosen.directions()
        loggers = _loggers(cli, run, resumed, directions)
        callbacks = [*_callbacks(cli, run.folder, preemption), *([pruning] if pruning else [])]
        trainer = _trainer(cli, [*callbacks, RunRecorder(run, cli.best, directions)], loggers)
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
    content = yaml.safe_load(read_regular(run.folder / CONFIG))
    return content["trainer"].get("max_epochs")  # type: ignore[no-any-return]


def _enough(what: str, checkpoint: dict[str, Any]) -> UserError:
    done = trained_epochs(checkpoint)
    return UserError(
        f"{what} has finished its {done} epoch{'s' if done != 1 else ''}; to continue, add "
        f"--trainer.max_epochs {2 * done}"
    )


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
    """Makes the run folder, or goes on with one; keeps other processes from it."""
    if resumed is None:
        trainer = cli.config["trainer"]
        if cli.checkpoint is not None and is_done(cli.checkpoint, trainer["max_epochs"], trainer["max_steps"]):
            raise _enough(cli.config["ckpt_path"], cli.checkpoint)
        runs_dir = Path(cli.config["runs_dir"]) if cli.config["runs_dir"] else default_runs_dir()
        cli.config["experiment"] = name = experiment_name(cli, argv)
        facts = {"better": cli.chosen.better(), "found": findings.values}
        run = Run.create(runs_dir, name, command, cli.config["seed_everything"], folder, _as_yaml(cli), facts)
        if folder is None:
            remember(runs_dir)
    else:
        run = resumed
        path = run.folder / CONFIG
        if path.is_file():
            before = yaml.safe_load(path.read_text())
            cli.config["ckpt_path"], cli.config["experiment"] = before.get("ckpt_path"), before.get("experiment")
        run.record.better, run.record.found = cli.chosen.better(), run.record.found | findings.values
        run.resume(command)
        remove_halves(run.folder)
    return run


def _as_yaml(cli: ExperimentCLI) -> str:
    return yaml.safe_dump(cli.resolved(), sort_keys=False)


def _loggers(cli: ExperimentCLI, run: Run, resumed: Run | None, directions: dict[str, Direction]) -> list[Logger]:
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
        for name, mode in directions.items():
            wandb_logger.experiment.define_metric(name, step_metric="trainer/global_step", summary=f"{mode},last")
        loggers.append(wandb_logger)
    run.save()
    return loggers


def _callbacks(cli: ExperimentCLI, folder: Path, preemption: Preemption) -> list[Callback]:
    cli.best.dirpath = cli.last.dirpath = str((folder / "checkpoints").absolute())
    names = {type(callback).__name__ for callback in cli.user_callbacks()}
    seed = cli.config["seed_everything"]
    first: list[Callback] = [cli.last, preemption, *([] if seed is False else [StepSeed(seed)]), AverageWeights()]
    ours: list[Callback] = [FiniteLoss(), Vitals(), Figures(folder, cli.last), cli.best, *cli.bar()]
    if "LearningRateMonitor" not in names:
        ours.append(LearningRateMonitor())
    return [*first, Monitors(cli.chosen.logged), *cli.user_callbacks(), *ours, ResumedEpoch()]


def _trainer(cli: ExperimentCLI, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    users = cli.config_init["trainer"]["logger"]
    extra = [] if not users or users is True else users if isinstance(users, list) else [users]
    plugins = cli.config_init["trainer"]["plugins"] or []
    run_folder = Path(str(cli.last.dirpath)).parent
    trainer = cli.instantiate_trainer(
        callbacks=callbacks,
        logger=[*loggers, *extra],
        plugins=[*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO(run_folder)],
    )
    if trainer.world_size > 1 and cli.config["seed_everything"] is False:
        raise UserError("--seed_everything false: several processes must draw the same order of images; give a number")
    if isinstance(cli.config["trainer"]["strategy"], str):
        limit_waiting(trainer, cli.config["timeout_minutes"])
    return trainer


def _fit_and_test(cli: ExperimentCLI, verb: str, trainer: Trainer, ckpt_path: str | None) -> None:
    try:
        with mendable(), on_loopback(trainer):
            trainer.fit(cli.model, cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
            stages = getattr(cli.datamodule, "stages", ("test",))
            if verb == "train" and "test" in stages and is_overridden("test_step", cli.model):
                # the weights that are kept, where a callback may have left others: those of a file
                last = Path(cli.best.dirpath or ".") / NAME
                kept = cli.best.best_model_path or (str(last) if trainer.global_step else None)
                trainer.test(cli.model, cli.datamodule, ckpt_path=kept, weights_only=True, verbose=False)
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
def recorded(run: Run, verb: str, is_new: bool, pruning: Pruning | None = None) -> Iterator[None]:
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
    last = {f"last {name}": value for name, value in record.last.items()}
    shown = STAGES if record.metrics.items() >= record.last.items() else (*STAGES, "last train", "last val")
    lines = [metric_table(record.metrics | last, shown)] if record.metrics else []
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
        f"lightning-cnn predict --ckpt_path {shlex.quote(f'{run.folder}/checkpoints/best.ckpt')} {predicted}",
    ]
    return "\n".join(lines)
