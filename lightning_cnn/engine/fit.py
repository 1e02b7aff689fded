"""`train`: trains a configuration, as a new run or as one that goes on, and may test its best checkpoint."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.model_helpers import is_overridden

from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import TRAIN
from lightning_cnn.datamodules.base import DataModule
from lightning_cnn.engine import resumption
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.computing import choose_computing
from lightning_cnn.engine.finding import Findings, find_settings
from lightning_cnn.engine.finite_loss import FiniteLoss
from lightning_cnn.engine.last_validation import LastValidation
from lightning_cnn.engine.pruning import Pruning
from lightning_cnn.engine.recording import new_run, open_loggers, recorded
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Direction
from lightning_cnn.figures.callback import Figures
from lightning_cnn.modules.averaging import AverageWeights
from lightning_cnn.notes import say
from lightning_cnn.resume.checkpoint_file import AtomicCheckpointIO
from lightning_cnn.resume.last_checkpoint import NAME
from lightning_cnn.resume.leftovers import remove_temporary_files
from lightning_cnn.resume.lightning_loops import LOGGED, ResumedEpoch
from lightning_cnn.resume.preemption import Preemption
from lightning_cnn.resume.processes import is_loss_of_a_process, on_loopback, process_rank, watching
from lightning_cnn.resume.signals import Interrupted, defer_signals, stop_if_received
from lightning_cnn.resume.step_seed import StepSeed
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.loggers import log_figure, log_settings, save_table
from lightning_cnn.tracking.monitors import Monitors
from lightning_cnn.tracking.record import BASELINES, CONFIG, METRICS, PREDICTIONS, RECORD
from lightning_cnn.tracking.recorder import RunRecorder
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.throughput import Throughput

# files of a run folder that show its best weights
OF_WEIGHTS = (
    *(PREDICTIONS, BASELINES, "report.html", "explain.html", "explain.png"),
    *("figures/test_*.png", "tables/test_*.csv"),
)


def train(
    config: Config,
    *,
    resume: RunFolder | None = None,
    folder: Path | None = None,
    prune: Pruning | None = None,
    command: str = "",
) -> RunFolder | None:
    """Trains, and tests the best checkpoint where that is the kind of work.

    Args:
        config: The configuration; of a run that goes on, with its last checkpoint (`resumption.layers_of`).
        resume: The run that goes on.
        folder: The run folder, made where it is missing and gone on with where it is there; default a new one.
        prune: Of a trial of a sweep: may end it early.
        command: The command that the run notes; default that which repeats it, where its folder is given.

    Returns:
        The run; None in the processes that have none, and after a `fast_dev_run`.

    Raises:
        UserError: If it can't be trained.
        Interrupted: If a signal has asked for the end.
    """
    if folder is not None and not command:
        command = shlex.join(["lightning-cnn", config.kind.name, "--config", str(folder / CONFIG)])
    if resume is None and folder is not None and (folder / RECORD).is_file():
        # the same configuration once more, but for what has been found and sampled
        resume = RunFolder.open(folder)
        seed = {"seed_everything": resume.record.seed} if config["seed_everything"] is True else {}
        config = config.override(resumption.state_of(resume) | seed)
    with nullcontext() if resume is None or process_rank() else resume.held():
        return _train(config, command, resume, prune, folder)


def _train(
    config: Config, command: str, resumed: RunFolder | None, prune: Pruning | None, folder: Path | None
) -> RunFolder | None:
    test = config.kind == TRAIN
    if resumed is not None:
        resumption.check_unchanged(resumed, config)
    experiment = Experiment(config, resumed)
    experiment.check()
    done = resumed is not None and resumption.check_done(experiment.config, resumed, once_more=folder is not None)
    experiment.checkpoints.last.goes_further = not done  # a new run from a checkpoint, too
    stop_if_received()
    if resumed is not None and done and resumed.status == "finished":  # a job that was started once more
        return resumed
    if isinstance(data := experiment.data, DataModule):  # bad data leaves nothing behind, and costs no training
        experiment.prepare("fit", *({"test"} & {*data.stages} if test else ()))
    stop_if_received()
    findings = find_settings(experiment, resumed)
    choose_computing(findings)
    experiment = findings.experiment
    if experiment.config["trainer"]["fast_dev_run"]:
        callbacks = [*experiment.callbacks(), *experiment.bar()]
        _fit_and_test(experiment, False, experiment.trainer(logger=False, callbacks=callbacks), None)
        return None
    ckpt_path = experiment.config["ckpt_path"]
    defer_signals()
    last, minutes = experiment.checkpoints.last, experiment.checkpoints.every_n_minutes
    preemption = Preemption(last, minutes, experiment.config["timeout_minutes"])
    if process_rank() != 0:  # the run folder, the record and the loggers are rank zero's
        with _together(preemption), _naming_the_missing(preemption):
            trainer = _trainer(experiment, _callbacks(experiment, Path("."), preemption), [DummyLogger()])
            _fit_and_test(experiment, test, trainer, ckpt_path)
        return None
    run = _open_run(experiment, command, resumed, folder, findings)
    with (
        _together(preemption),
        recorded(run, config.kind.name, resumed is None, prune),
        _naming_the_missing(preemption),
        watching(partial(run.finish, "failed")),
    ):
        run.write_config(experiment.config.to_yaml())
        for line in findings.lines:
            say(line)
        directions = experiment.chosen.known.directions(experiment.chosen.monitors)
        loggers = _loggers(experiment, run, resumed, directions)
        callbacks = [*_callbacks(experiment, run.folder, preemption), *([prune] if prune else [])]
        trainer = _trainer(experiment, [*callbacks, RunRecorder(run, experiment.checkpoints.best, directions)], loggers)
        for name, figure in findings.figures.items():
            log_figure(trainer, figure, run.folder / "figures" / f"{name}.png")
        _fit_and_test(experiment, test, trainer, ckpt_path)
        log_settings(trainer.loggers, experiment.config.flat(), run.record.metrics, run.record.best)
        for logger in trainer.loggers:
            logger.save()
    return run


def _open_run(
    experiment: Experiment, command: str, resumed: RunFolder | None, folder: Path | None, findings: Findings
) -> RunFolder:
    """Makes the run folder, or goes on with one; keeps other processes from it."""
    config, better = experiment.config, experiment.chosen.better()
    if resumed is None:
        if config.checkpoint is not None and resumption.is_done(config.checkpoint, config["trainer"]):
            raise resumption.already_finished(config["ckpt_path"], config.checkpoint, config["trainer"])
        return new_run(experiment, command, folder, better=better, found=findings.values)
    if (before := resumption.saved_values(resumed)) is not None:
        experiment.set(ckpt_path=before.get("ckpt_path"), experiment=before.get("experiment"))
    resumed.record.better, resumed.record.found = better, resumed.record.found | findings.values
    resumed.go_on(command)
    for path in [path for pattern in OF_WEIGHTS for path in resumed.folder.glob(pattern)]:
        path.unlink(missing_ok=True)
    remove_temporary_files(resumed.folder)
    return resumed


def _loggers(
    experiment: Experiment, run: RunFolder, resumed: RunFolder | None, directions: dict[str, Direction]
) -> list[Logger]:
    step = None
    if resumed is not None:  # the file may be one of another kind than last.ckpt
        state = experiment.config.checkpoint or {LOGGED: 0}
        step = int(state.get(LOGGED, state.get("global_step", 0)))
    loggers = open_loggers(run, experiment.config, step)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, mode in directions.items():
                logger.experiment.define_metric(name, step_metric="trainer/global_step", summary=f"{mode},last")
    return loggers


def _callbacks(experiment: Experiment, folder: Path, preemption: Preemption) -> list[Callback]:
    best, last = experiment.checkpoints.best, experiment.checkpoints.last
    best.dirpath = last.dirpath = str((folder / "checkpoints").absolute())
    names = {type(callback).__name__ for callback in experiment.callbacks()}
    seed = experiment.config["seed_everything"]
    history = partial(read_history, folder / METRICS)
    figures = Figures(folder / "figures", log_figure, save_table, history, last, best)
    first: list[Callback] = [last, preemption, *([] if seed is False else [StepSeed(seed)]), AverageWeights()]
    ours: list[Callback] = [FiniteLoss(), LastValidation(), Throughput(), figures, best, *experiment.bar()]
    if "LearningRateMonitor" not in names:
        ours.append(LearningRateMonitor())
    return [*first, Monitors(experiment.chosen.logged), *experiment.callbacks(), *ours, ResumedEpoch()]


def _trainer(experiment: Experiment, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    run_folder = Path(str(experiment.checkpoints.last.dirpath)).parent
    loggers = [*loggers, *experiment.extras("logger")]
    plugins = [*experiment.extras("plugins"), AtomicCheckpointIO(run_folder)]
    # what callbacks of others write without a place of their own lies in the run folder
    root = experiment.config["trainer"]["default_root_dir"] or run_folder
    trainer = experiment.trainer(callbacks=callbacks, logger=loggers, plugins=plugins, default_root_dir=root)
    if trainer.world_size > 1 and experiment.config["seed_everything"] is False:
        raise UserError("`seed_everything` false: several processes need the same order of images; give a number")
    return trainer


def _fit_and_test(experiment: Experiment, test: bool, trainer: Trainer, ckpt_path: str | None) -> None:
    try:
        with user_errors(), on_loopback(trainer):
            trainer.fit(experiment.model, experiment.data, ckpt_path=ckpt_path, weights_only=True)
            stages = getattr(experiment.data, "stages", ("test",))
            if test and "test" in stages and is_overridden("test_step", experiment.model):
                # the weights that are kept, where a callback may have left others: those of a file
                best = experiment.checkpoints.best
                last = Path(best.dirpath or ".") / NAME
                kept = best.best_model_path or (str(last) if trainer.global_step else None)
                trainer.test(experiment.model, experiment.data, ckpt_path=kept, weights_only=True, verbose=False)
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
        preemption.wait_for_others()
        raise


@contextmanager
def _naming_the_missing(preemption: Preemption) -> Iterator[None]:
    """Says which process is gone or does not answer."""
    try:
        yield
    except RuntimeError as error:
        if not is_loss_of_a_process(error):
            raise
        raise RuntimeError(f"a process has ended or does not respond: {preemption.missing()}") from error
