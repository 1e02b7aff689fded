"""`train` (fit, then test the best checkpoint, then print the result) and `fit` (without the test)."""

import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.model_helpers import is_overridden

from lightning_cnn.callbacks import Figures, FiniteLoss, LastCheckpoint, Vitals
from lightning_cnn.commands.metric_table import metric_table
from lightning_cnn.config_parser import option_values, without_option
from lightning_cnn.datamodules import ImageDataModule
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.checkpoint import AtomicCheckpointIO, read_checkpoint, sweep
from lightning_cnn.tracking.loggers import MONITORED, MetricsCSV, RunTensorBoard, log_settings
from lightning_cnn.tracking.recorder import RunRecorder
from lightning_cnn.tracking.run import CONFIG, METRICS, Run, default_runs_dir, find_run
from lightning_cnn.tracking.settings import flatten
from lightning_cnn.wiring import ExperimentCLI, experiment_name, mendable


def main(verb: str, argv: list[str]) -> int:
    """Trains. Returns the exit code."""
    command = shlex.join(["lightning-cnn", verb, *argv])
    resumed = None
    if "--resume" in argv or option_values(argv, "--resume"):
        resumed, argv = _resume(argv)
    cli = ExperimentCLI(verb, argv)
    _prepare(cli, verb)
    if cli.config["trainer"]["fast_dev_run"]:
        _fit_and_test(
            cli, "fit", cli.instantiate_trainer(logger=False, callbacks=[*cli.user_callbacks(), *cli.bar()]), None
        )
        return 0
    ckpt_path = cli.config["ckpt_path"]
    if _rank() != 0:  # the run folder, the record and the loggers are rank zero's
        _fit_and_test(cli, verb, _trainer(cli, _callbacks(cli, Path(".")), [DummyLogger()]), ckpt_path)
        return 0
    run = _open_run(cli, argv, command, resumed)
    with _recorded(run, is_new=resumed is None):
        loggers = _loggers(cli, run, resumed)
        trainer = _trainer(cli, [*_callbacks(cli, run.folder), RunRecorder(run, cli.best)], loggers)
        _fit_and_test(cli, verb, trainer, ckpt_path)
        log_settings(trainer.loggers, flatten(cli.resolved()), run.record.metrics, run.record.best)
        for logger in trainer.loggers:
            logger.save()
    print(_result(run))
    return 0


def _resume(argv: list[str]) -> tuple[Run, list[str]]:
    """The run to go on with, and the command line that repeats it with what is typed on top."""
    names = option_values(argv, "--resume")
    if not names:
        raise UserError("--resume needs a run: --resume RUN (`lightning-cnn list runs`)")
    runs_dir = Path((option_values(argv, "--runs_dir") or [str(default_runs_dir())])[-1])
    run = find_run(runs_dir, names[-1])
    if not _last(run).is_file():
        raise UserError(f"{run.folder} has no finished epoch to go on from: start it anew with train --config")
    if _rank() == 0 and run.status == "running":
        raise UserError(f"{run.folder} is still being trained, by process {run.record.pid} on {run.record.host}")
    repeated = ["--config", str(run.folder / CONFIG), "--ckpt_path", str(_last(run))]
    return run, [*repeated, *without_option(argv, "--resume")]


def _prepare(cli: ExperimentCLI, verb: str) -> None:
    """Reads our data sets before anything is written: bad data leaves nothing behind, and costs no training."""
    if _rank() == 0 and isinstance(cli.datamodule, ImageDataModule):
        cli.datamodule.prepare_data()
        with mendable():
            cli.datamodule.setup("fit")
            if verb == "train" and "test" in cli.datamodule.stages:
                cli.datamodule.setup("test")


def _open_run(cli: ExperimentCLI, argv: list[str], command: str, resumed: Run | None) -> Run:
    """Makes the run folder, or goes on with one, and writes the configuration into it."""
    max_epochs = cli.config["trainer"]["max_epochs"]
    if cli.checkpoint is not None:
        done = int(cli.checkpoint["epoch"]) + 1
        if max_epochs is not None and 0 <= max_epochs <= done:
            what = resumed.folder if resumed else cli.config["ckpt_path"]
            raise UserError(f"{what} has its {done} epochs: to train on, add --trainer.max_epochs {2 * done}")
    if resumed is None:
        runs_dir = Path(cli.config["runs_dir"]) if cli.config["runs_dir"] else default_runs_dir()
        run = Run.create(runs_dir, experiment_name(cli, argv), command, cli.config["seed_everything"])
        cli.config["experiment"] = run.record.name
    else:
        run = resumed
        cli.config["ckpt_path"] = yaml.safe_load((run.folder / CONFIG).read_text()).get("ckpt_path")  # as it began
        sweep(run.folder / "checkpoints")
        run.resume(command)
    (run.folder / CONFIG).write_text(yaml.safe_dump(cli.resolved(), sort_keys=False))
    return run


def _loggers(cli: ExperimentCLI, run: Run, resumed: Run | None) -> list[Logger]:
    from lightning_cnn.tracking.wandb_run import start_wandb  # a second of import, on rank zero only

    step = int(read_checkpoint(_last(run))["global_step"]) if resumed else None
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


def _callbacks(cli: ExperimentCLI, folder: Path) -> list[Callback]:
    last = LastCheckpoint()
    cli.best.dirpath = last.dirpath = str((folder / "checkpoints").absolute())
    names = {type(callback).__name__ for callback in cli.user_callbacks()}
    ours: list[Callback] = [
        FiniteLoss(),
        Vitals(),
        Figures(folder),
        cli.best,
        last,
    ]  # last.ckpt then knows of best.ckpt
    ours += cli.bar()
    if "LearningRateMonitor" not in names:
        ours.append(LearningRateMonitor())
    return [*cli.user_callbacks(), *ours]


def _trainer(cli: ExperimentCLI, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    users = cli.config_init["trainer"]["logger"]
    extra = [] if not users or users is True else users if isinstance(users, list) else [users]
    plugins = cli.config_init["trainer"]["plugins"] or []
    return cli.instantiate_trainer(
        callbacks=callbacks,
        logger=[*loggers, *extra],
        plugins=[*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()],
    )


def _fit_and_test(cli: ExperimentCLI, verb: str, trainer: Trainer, ckpt_path: str | None) -> None:
    try:
        with mendable():
            trainer.fit(cli.model, cli.datamodule, ckpt_path=ckpt_path, weights_only=True)
            stages = getattr(cli.datamodule, "stages", ("test",))
            if verb == "train" and "test" in stages and is_overridden("test_step", cli.model):
                best = cli.best.best_model_path or None
                trainer.test(cli.model, cli.datamodule, ckpt_path=best, weights_only=True, verbose=False)
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit:
        if trainer.interrupted:  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _recorded(run: Run, is_new: bool) -> Iterator[None]:
    """Writes how the run ended; a new run that ends by a user's mistake before its first epoch leaves nothing."""
    status, error, mistaken = "finished", None, False
    try:
        yield
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
        _finish_wandb(run, failed=status != "finished")
        if mistaken and is_new and run.record.epochs == 0:
            shutil.rmtree(run.folder)
        else:
            run.finish(status, error)  # type: ignore[arg-type]


def _finish_wandb(run: Run, failed: bool) -> None:
    if run.record.wandb.get("mode") not in (None, "disabled"):
        import wandb

        wandb.finish(exit_code=int(failed))


def _rank() -> int:
    """Which process this is: Lightning reads it from the environment before any process group exists."""
    return int(getattr(rank_zero_only, "rank", 0))


def _last(run: Run) -> Path:
    return run.folder / "checkpoints" / "last.ckpt"


def _result(run: Run) -> str:
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
        f"lightning-cnn predict --ckpt_path {run.folder}/checkpoints/best.ckpt --images FILE_OR_FOLDER",
    ]
    return "\n".join(lines)
