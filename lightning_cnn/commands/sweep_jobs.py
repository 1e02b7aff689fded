"""The processes of a sweep: each takes trials and trains them until none is left. Imports torch only then."""

import os
import signal
import threading
import traceback
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cnn.errors import UserError
from lightning_cnn.interruption import Interrupted, listening, received
from lightning_cnn.plain_text import plain_output
from lightning_cnn.regular_files import without_links

if TYPE_CHECKING:
    from optuna import Trial

    from lightning_cnn.sweeps.study import Study
    from lightning_cnn.tracking.run import Run

LOGS = "logs"


def run_jobs(home: Path, jobs: int, devices: Sequence[str]) -> list[int]:
    """Trains in so many processes at the same time; a signal to this one stops them all.

    Args:
        home: Folder of the experiment.
        jobs: Processes.
        devices: The GPUs there are, as `CUDA_VISIBLE_DEVICES` names them; each process gets one of them in turn.

    Returns:
        The exit codes of the processes.
    """
    context = get_context("spawn")
    processes = [
        context.Process(target=_start, args=(home, jobs, devices[number % len(devices)] if devices else None))
        for number in range(jobs)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    except BaseException:
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join()
        raise
    return [int(process.exitcode or 0) for process in processes]


def work(home: Path) -> None:
    """Trains trials until none is left to take."""
    from lightning_cnn.sweeps.study import Study

    study = Study(home)
    with study.giving_signs():
        while (trial := study.take()) is not None:
            _train(study, trial)
            if received():
                raise Interrupted(received())


def _start(home: Path, jobs: int, device: str | None) -> None:
    """What a process does."""
    with plain_output(), listening():
        threading.Thread(target=_stop_with_parent, daemon=True).start()
        if device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
        work(home)


def _stop_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _train(study: "Study", trial: "Trial") -> None:
    """Trains a trial, records how it ended, and says a line about it."""
    from lightning_cnn.callbacks import Pruning
    from lightning_cnn.commands.log_file import printing_to
    from lightning_cnn.commands.train import train
    from lightning_cnn.sweeps.study import NUMBER

    number = trial.user_attrs[NUMBER] + 1
    log = study.folder / LOGS / f"trial_{number:03}.txt"
    log.parent.mkdir(exist_ok=True)
    pruning = Pruning(study.monitor, partial(study.report, trial)) if study.settings.prune else None
    try:
        with printing_to(log):
            run = train("fit", study.words(trial), pruning, study.run_folder(trial))
        assert run is not None
        result = _record(study, trial, run)
    except UserError as error:
        result = str(error)
        study.fail(trial, result)
    except (KeyboardInterrupt, SystemExit):
        study.fail(trial, "interrupted", interrupted=True)
        raise
    except Exception as error:  # what a setting does to a network may be anything; the others go on
        result = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({log})"
        study.fail(trial, result)
        with open(log, "a", opener=without_links) as file:
            traceback.print_exc(file=file)
    values = " ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    print(f"trial {number} of {study.settings.trials}  {values}  {result}", flush=True)


def _record(study: "Study", trial: "Trial", run: "Run") -> str:
    """Records the result of a run; returns it in words."""
    record = run.record
    if not record.best:
        raise UserError(f"no {study.monitor} was logged: choose another metric with --checkpoint.monitor")
    value = float(record.best["value"])
    pruned = record.status == "pruned"
    study.tell(trial, value, pruned)
    end = f"pruned after {record.epochs} epochs" if pruned else f"{study.monitor} {value:.4g}"
    return f"{end}  {record.seconds:.0f} s  {record.id}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
