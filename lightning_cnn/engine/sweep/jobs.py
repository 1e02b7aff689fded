"""The processes of a sweep: each takes trials and trains them until none is left. Imports torch only then."""

import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.regular_files import without_links
from lightning_cnn.resume.files import make_folder, writing_into
from lightning_cnn.resume.signals import Interrupted, at_once, noting, received
from lightning_cnn.resume.workers import printing_to, started

if TYPE_CHECKING:
    from optuna import Trial

    from lightning_cnn.engine.sweep.study import Study
    from lightning_cnn.tracking.run import RunFolder

LOGS = "logs"


@dataclass(frozen=True)
class Ended:
    """How a process of a sweep has ended.

    Attributes:
        code: Its exit code; a negative one is the number of the signal that killed it.
        error: What the user can mend, empty where it was nothing of that kind.
    """

    code: int
    error: str = ""


def run_jobs(home: Path, jobs: int, devices: Sequence[str]) -> list[Ended]:
    """Trains in so many processes at the same time; a signal to this one stops them all.

    Args:
        home: Folder of the experiment.
        jobs: Processes.
        devices: The GPUs there are, as `CUDA_VISIBLE_DEVICES` names them; each process gets one of them in turn.

    Returns:
        How the processes have ended.
    """
    with started(partial(_work, home, jobs), jobs, devices) as workers:
        for worker in workers:
            worker.process.join()
    return [Ended(int(worker.process.exitcode or 0), _said(worker.line)) for worker in workers]


def work(home: Path) -> None:
    """Trains trials until none is left to take.

    Raises:
        Interrupted: If a signal has asked for the end.
        StorageError: If there is no room on the disk.
    """
    # all that takes long comes first: who has taken a trial trains it
    import lightning_cnn.engine.fit  # noqa: F401
    from lightning_cnn.engine.sweep.study import Study

    study = Study(home)
    with noting(), study.giving_signs():
        while not received() and (trial := study.take()) is not None:
            _train(study, trial)


def _said(line: Connection) -> str:
    """What a process that has ended has said."""
    with suppress(EOFError, OSError):
        return str(line.recv()) if line.poll() else ""
    return ""


def _work(home: Path, jobs: int, line: Connection) -> None:
    """What a process does."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    try:
        work(home)
    except UserError as error:
        line.send(str(error))
        raise SystemExit(2) from None


def _train(study: "Study", trial: "Trial") -> None:
    """Trains a trial, records how it ended, and says a line about it.

    Raises:
        Interrupted: If the training was stopped; the trial is there to take again.
        StorageError: If there is no room on the disk; the same holds.
    """
    from pytorch_lightning.utilities.memory import is_oom_error

    from lightning_cnn.config.config import Config
    from lightning_cnn.config.schema import FIT
    from lightning_cnn.engine.fit import train
    from lightning_cnn.engine.sweep.pruning import Pruning
    from lightning_cnn.engine.sweep.study import NUMBER, TRIAL

    number = trial.user_attrs[NUMBER] + 1
    log = study.folder / LOGS / f"trial_{number:03}.txt"
    pruning = Pruning(study.monitor, partial(study.report, trial)) if study.settings.prune else None
    try:
        run = study.ended_run(trial)  # where a process was stopped before it had recorded the result
        with writing_into(log.parent):
            if run is None:
                make_folder(log.parent)
                with at_once(), printing_to(log):
                    config = Config.load(study.folder / TRIAL, study.fields(trial), kind=FIT)
                    run = train(config, test=False, folder=study.run_folder(trial), prune=pruning)
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
        result = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({log})"
        study.fail(trial, result, starved=isinstance(error, MemoryError) or is_oom_error(error))
        with suppress(OSError), open(log, "a", opener=without_links) as file:
            traceback.print_exc(file=file)
    values = " ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    print(f"trial {number} of {study.settings.trials}  {values}  {result}", flush=True)


def _give_back(study: "Study", trial: "Trial", reason: str) -> None:
    """Puts a trial back; where the disk has no room for that, the end of this process says the same."""
    with suppress(StorageError):
        study.fail(trial, reason, interrupted=True)


def _record(study: "Study", trial: "Trial", run: "RunFolder") -> str:
    """Records the result of a run; returns it in words."""
    record = run.record
    if not record.best:
        raise UserError(f"no {study.monitor} was logged: choose another metric with `checkpoint.monitor`")
    value = float(record.best["value"])
    pruned = record.status == "pruned"
    study.tell(trial, value, pruned)
    end = f"pruned after {record.epochs} epochs" if pruned else f"{study.monitor} {value:.4g}"
    return f"{end}  {record.seconds:.0f} s  {record.id}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
