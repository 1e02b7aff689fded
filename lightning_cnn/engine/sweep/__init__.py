"""Searches for settings: trains again and again, and keeps those whose validation metric is best."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from matplotlib.figure import Figure
from optuna.importance import get_param_importances
from optuna.trial import TrialState

from lightning_cnn.cluster.requeue import JOB_HOME, CommandJob
from lightning_cnn.cluster.slurm import LOGS as JOB_LOGS
from lightning_cnn.cluster.slurm import Slurm, check_slurm, script, submit
from lightning_cnn.config.config import Config
from lightning_cnn.config.trust import is_own, remember, trust_words
from lightning_cnn.engine.parts import check_same, config_of_parts
from lightning_cnn.engine.run import Run
from lightning_cnn.engine.sweep.checks import ready
from lightning_cnn.engine.sweep.jobs import LOGS, run_jobs, work
from lightning_cnn.engine.sweep.settings import SWEEP, settings_of
from lightning_cnn.engine.sweep.studies import create_study
from lightning_cnn.engine.sweep.study import BEST, FOLDER, NUMBER, RUN, Study
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.figures.style import encode
from lightning_cnn.figures.sweep import history, importance
from lightning_cnn.notes import say
from lightning_cnn.resume.files import replace_bytes, replace_text
from lightning_cnn.resume.signals import Interrupted
from lightning_cnn.resume.workers import how_it_ended
from lightning_cnn.tracking.record import CONFIG, default_runs_dir, new_folder
from lightning_cnn.tracking.wandb_run import choose_mode

MAY_CHANGE = ("trials", "jobs")  # when a sweep goes on
FEWEST = 4  # finished trials of which a word about importance can be said
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "still running"}


@dataclass(frozen=True)
class Sweep:
    """What a sweep has come to.

    Attributes:
        home: Its folder, in which its runs lie.
        monitor: The metric that chooses.
        best: The settings of the best trial; empty where none has finished, or Slurm trains.
        value: The metric of the best trial.
        folder: The run folder of the best trial.
        config: Its whole configuration, to be trained and tested.
        figures: Figures by name.
        jobs: The ids of the jobs, where Slurm trains.
        logs: The folder of their logs.
    """

    home: Path
    monitor: str
    best: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    folder: Path | None = None
    config: Path | None = None
    figures: list[Path] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    logs: Path | None = None

    @property
    def run(self) -> Run | None:
        """The run of the best trial."""
        return None if self.folder is None else Run.open(self.folder)

    @property
    def trials(self) -> pd.DataFrame:
        """The trials by number, counted from 1: `state`, `value`, `run` and the settings of each."""
        rows = {
            t.user_attrs[NUMBER] + 1: {"state": STATES[t.state.name], "value": t.value, "run": t.user_attrs.get(RUN)}
            | t.params
            for t in Study(self.home).trials
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")


def sweep(
    config: Config, *, resume: Study | None = None, slurm: Slurm | None = None, on_trial: Callable[[str], None] = say
) -> Sweep:
    """Trains the trials that are left, and draws what came of all.

    Args:
        config: The configuration, of the kind `SWEEP`. The same once more goes on with what it has begun.
        resume: The sweep to go on with.
        slurm: Options of the jobs that train, on a cluster; default this machine.
        on_trial: Is given a line about each trial that has ended; with several `jobs` they are notes.

    Raises:
        UserError: If it can't be done, or all trials fail.
        Interrupted: If a signal has asked for the end.
    """
    experiment, home = ready(config, resume, slurm)
    if slurm:
        check_slurm()
    try:
        study, is_new = _begun(experiment.config, home, resume)
        left = study.left()
        jobs = min(experiment.config["jobs"], left)
        say(f"{study.settings.trials} trials in {home}, {left} of them not yet trained")
        if slurm and left:
            return _submitted(study, slurm, jobs)
        _check_end(study, _train(study, jobs, on_trial), is_new)
        return _result(study)
    except (Interrupted, KeyboardInterrupt, StorageError) as stop:
        if (home / FOLDER / CONFIG).is_file():
            stop.add_note(f"resume with: {_to_resume(home)}")
        raise


def sweep_script(config: Config, slurm: Slurm, *, resume: Study | None = None) -> str:
    """The sbatch script that `sweep` would submit; Slurm need not be there.

    Args:
        config: The configuration.
        slurm: The options of the jobs.
        resume: The sweep to go on with.
    """
    experiment, home = ready(config, resume, slurm)
    return script(slurm, new_folder(home, JOB_LOGS), home.name, experiment.config["jobs"])


def _begun(config: Config, home: Path, resume: Study | None) -> tuple[Study, bool]:
    """The study, and whether it is a new one; one that is there takes up another number of trials."""
    if resume is None:
        choose_mode(config["wandb"])  # what can't be tracked shows now, not in each trial
        if create_study(home, config.values, config_of_parts(config, *SWEEP.fields)):
            remember(home.parent)
            return Study(home), True
    # the same command once more, or another process has just been faster
    study = resume or Study(home)

    def advice(name: str) -> str:
        way = "without it" if resume else f"by {_to_resume(home)}"
        way = "" if name.endswith(".mode") else f"go on {way}, or "  # a sweep with the wrong mode can't
        return f"{way}begin another sweep with `experiment` NAME"

    check_same(config, study.config, MAY_CHANGE, f"the sweep in {home}", advice)
    settings_of(config.values)
    if resume is None:
        say(f"resuming the sweep in {home}; use another `experiment` NAME to start a new one")
    if config["trials"] != study.config["trials"]:
        values = study.config | {"trials": config["trials"]}
        replace_text(study.folder / CONFIG, yaml.safe_dump(values, sort_keys=False))
    return Study(home), False


def _submitted(study: Study, slurm: Slurm, jobs: int) -> Sweep:
    """Submits an array of jobs that share the trials."""
    home = study.home.absolute()
    # whose it is, for the jobs
    words = ("--runs_dir", str(home.parent)) if is_own(home) else trust_words()
    job = CommandJob(("sweep", "--resume", str(home), *words, "--jobs", "1"), {JOB_HOME: str(home)})
    logs = new_folder(study.home, JOB_LOGS)
    return Sweep(study.home, study.monitor, jobs=submit(slurm, logs, home.name, [job] * jobs), logs=logs)


def _train(study: Study, jobs: int, on_trial: Callable[[str], None]) -> tuple[int, str]:
    """Trains what is left; returns how a process has ended before its time, as `run_jobs` does."""
    if jobs < 2:
        try:
            work(study.home, on_trial)
        except StorageError as error:
            return 2, str(error)
        return 0, ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return run_jobs(study.home, jobs, visible.split(",")[:count] if visible else [*map(str, range(count))])


def _check_end(study: Study, end: tuple[int, str], is_new: bool) -> None:
    """Says so where a sweep has not come to its end, or to nothing."""
    code, error = end
    if reason := study.reason_to_stop():
        logs = f" ({study.folder / LOGS})"
        if is_new and not any(study.run_folder(trial).is_dir() for trial in study.trials):
            shutil.rmtree(study.folder)
            if not any(study.home.iterdir()):
                study.home.rmdir()
            logs = ""
        raise UserError(f"every trial so far has failed: {reason}{logs}")
    left = study.left()
    if code and left:
        if error:
            raise StorageError(error)
        fewer = {"jobs": 1} if code == -signal.SIGKILL else {}
        again = _to_resume(study.home, **fewer)
        raise UserError(f"a process {how_it_ended(code)}; {left} trials are left: {again}")
    if not study.finished and not left:
        raise UserError(f"no trial has finished: see their logs in {study.folder / LOGS}")


def _result(study: Study) -> Sweep:
    """Writes the best configuration and draws the figures, where a trial has finished."""
    home, monitor = study.home, study.monitor
    if not study.finished:
        return Sweep(home, monitor)
    with study.alone():  # a process may have been stopped before it had done so
        study.write_best()
    figures = []
    for name, figure in _figures(study).items():
        figures.append(home / f"{name}.png")
        replace_bytes(figures[-1], encode(figure))
    best = study.optuna.best_trial
    return Sweep(home, monitor, dict(best.params), best.value, study.run_folder(best), home / BEST, figures)


def _figures(study: Study) -> dict[str, Figure]:
    """How the best value came about; with enough trials also what mattered (PED-ANOVA, Watanabe et al. 2023)."""
    finished, pruned = (
        [(t.user_attrs[NUMBER] + 1, t.value) for t in study.trials if t.state == state and t.value is not None]
        for state in (TrialState.COMPLETE, TrialState.PRUNED)
    )
    name, falls = study.home.name, study.mode == "min"
    found = {"history": history(finished, pruned, study.monitor, falls, f"{name}: {len(finished)} finished trials")}
    if len(finished) >= FEWEST and (shares := get_param_importances(study.optuna)):
        title = f"{name}: what mattered in {len(finished)} finished trials"
        found["importance"] = importance(shares, study.monitor, title)
    return found


def _to_resume(home: Path, **fields: Any) -> str:
    """The call that goes on with the sweep in a folder."""
    given = {"resume": home.name if home.parent == default_runs_dir() else str(home)} | fields
    return f"`sweep({', '.join(f'{name}={value!r}' for name, value in given.items())})`"
