"""The processes of a sweep: each takes trials and trains them until none is left."""

import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from optuna import Trial
from pytorch_lightning.utilities.memory import is_oom_error

from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import FIT
from lightning_cnn.engine.fit import train
from lightning_cnn.engine.pruning import Pruning
from lightning_cnn.engine.sweep.study import NUMBER, STARVED, STOPPED, TRIAL, Study
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.notes import say
from lightning_cnn.regular_files import without_links
from lightning_cnn.resume.files import make_folder, writing_into
from lightning_cnn.resume.signals import Interrupted, deferring_signals, received, stopping_at_once
from lightning_cnn.resume.workers import printing_to, started
from lightning_cnn.tracking.run import RunFolder

LOGS = "logs"


def run_jobs(home: Path, jobs: int, devices: Sequence[str]) -> tuple[int, str]:
    """Trains in so many processes at the same time; a signal to this one stops them all.

    Args:
        home: Folder of the experiment.
        jobs: Processes.
        devices: The GPUs there are, as `CUDA_VISIBLE_DEVICES` names them; each process gets one of them in turn.

    Returns:
        How a process has ended that did not come to its end: its exit code, that of a signal negative, and what the
        user can mend. (0, "") where there is none.
    """
    with started(partial(_work, home, jobs), jobs, devices) as workers:
        for worker in workers:
            worker.process.join()
    bad = [(int(worker.process.exitcode), _said(worker.line)) for worker in workers if worker.process.exitcode]
    return min(bad, key=lambda end: not end[1], default=(0, ""))


def work(home: Path, on_trial: Callable[[str], None] = say) -> None:
    """Trains trials until none is left to take.

    Args:
        home: Folder of the experiment.
        on_trial: Is given a line about each trial that has ended.

    Raises:
        Interrupted: If a signal has asked for the end.
        StorageError: If there is no room on the disk.
    """
    study = Study(home)
    with deferring_signals(), study.workers.heartbeat():
        while not received() and (trial := study.take()) is not None:
            on_trial(_train(study, trial))


def _said(line: Connection) -> str:
    """What a process that has ended has said."""
    with suppress(EOFError, OSError):
        return str(line.recv()) if line.poll() else ""
    return ""


def _work(home: Path, jobs: int, line: Connection) -> None:
    """What a process does."""
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    try:
        work(home)
    except UserError as error:
        line.send(str(error))
        raise SystemExit(2) from None


def _train(study: Study, trial: Trial) -> str:
    """Trains a trial and records how it ended; returns a line about it.

    Raises:
        Interrupted: If the training was stopped; the trial is there to take again.
        StorageError: If there is no room on the disk; the same holds.
    """
    number = trial.user_attrs[NUMBER] + 1
    log = study.folder / LOGS / f"trial_{number:03}.txt"
    pruning = Pruning(study.monitor, partial(study.report, trial)) if study.settings.prune else None
    try:
        run = study.ended_run(trial)  # where a process was stopped before it had recorded the result
        with writing_into(log.parent):
            if run is None:
                make_folder(log.parent)
                with stopping_at_once(), printing_to(log):
                    config = Config.load(study.folder / TRIAL, study.fields(trial), kind=FIT)
                    run = train(config, folder=study.run_folder(trial), prune=pruning)
            assert run is not None
            result = _record(study, trial, run)
    except StorageError as error:
        _give_back(study, trial, str(error))
        raise StorageError(str(error)) from None  # without what may be said of the run alone
    except UserError as error:
        result = str(error)
        study.fail(trial, result)
    except (KeyboardInterrupt, SystemExit) as stop:
        if not received() and isinstance(stop, SystemExit):  # nobody asked for it but the trial itself
            result = f"it ended the process with code {stop.code}"
            study.fail(trial, result)
        else:
            _give_back(study, trial, "interrupted")
            raise Interrupted(received() or signal.SIGINT) from None
    except Exception as error:  # what a setting does to a network may be anything; the others go on
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        starved = isinstance(error, MemoryError) or is_oom_error(error)
        study.fail(trial, reason, STARVED if starved else None)
        result = f"{reason} ({log})"
        with suppress(OSError), open(log, "a", opener=without_links) as file:
            traceback.print_exc(file=file)
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in trial.params.items()}
    values = " ".join(f"{name}={value}" for name, value in shown.items())
    return f"trial {number} of {study.settings.trials}  {values}  {result}"


def _give_back(study: Study, trial: Trial, reason: str) -> None:
    """Puts a trial back; where the disk has no room for that, the end of this process says the same."""
    with suppress(StorageError):
        study.fail(trial, reason, STOPPED)


def _record(study: Study, trial: Trial, run: RunFolder) -> str:
    """Records the result of a run; returns it in words."""
    record = run.record
    if not record.best:
        raise UserError(f"no {study.monitor} was logged: choose another metric with `checkpoint.monitor`")
    value = float(record.best["value"])
    pruned = record.status == "pruned"
    study.tell(trial, value, pruned)
    end = f"pruned after {record.epochs} epochs" if pruned else f"{study.monitor} {value:.4g}"
    return f"{end}  {record.seconds:.0f} s  {run.id}"
