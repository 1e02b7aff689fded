"""A study: its folder `runs/<name>/sweep/`, and its trials in a journal that any number of processes share.

The trials are numbered. A process takes the first number that nobody has, so that none is lost or taken twice. An
attempt whose process was told to stop, has died, or found no room on the disk or in memory counts as lost: its number
is there to take again, and its run goes on. Only those that died or found no memory are counted, and fail in the end.
"""

import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
import yaml
from optuna import Trial
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_cnn.engine.sweep.best import RUN, write_best
from lightning_cnn.engine.sweep.journal import Journal, Lock
from lightning_cnn.engine.sweep.search_space import setting
from lightning_cnn.engine.sweep.settings import SETTINGS, SweepSettings
from lightning_cnn.engine.sweep.workers import Workers
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.resume.files import TEMPORARY, make_folder, replace_text, storing
from lightning_cnn.resume.leftovers import is_half
from lightning_cnn.resume.signals import noting
from lightning_cnn.tracking.record import CONFIG, RECORD, SWEEP, new_folder
from lightning_cnn.tracking.run import RunFolder

FOLDER = SWEEP
TRIAL = "trial.yaml"  # what all trials share
JOURNAL = "journal.log"
WORKERS = "workers"  # folder with a file for each process, whose time is its sign of life
HALF = (TRIAL, JOURNAL, f"{JOURNAL}.lock", f"{JOURNAL}.here")  # what there is of one without its configuration
STUDY = "sweep"  # its name in the journal, which has no other
# what is noted with a trial
NUMBER, OWNER, LOST, REASON = "number", "owner", "lost", "reason"
# the ways in which an attempt can be lost; the last two are counted
STOPPED, KILLED, STARVED = "interrupted", "killed", "starved"
LOST_TIMES = 3  # after which a trial that was killed or starved each time is not tried again
HOPELESS = 3  # trials that fail for one and the same reason, with none that succeeds, end the sweep
FIRST_TO_PRUNE = 5  # trials that are never ended early: the median of fewer says little

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Study:
    """A study that other processes may be working on, too.

    Args:
        home: Folder of the experiment, in which the runs of the trials lie.

    Raises:
        UserError: If there is no study in it.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / FOLDER
        if not (self.folder / CONFIG).is_file():
            raise UserError(f"there is no sweep in {home}: start one with `sweep()`")
        self.config: dict[str, Any] = yaml.safe_load((self.folder / CONFIG).read_text())
        self.settings = SweepSettings(**{name: self.config[name] for name in SETTINGS})
        self.monitor, self.mode = (str(self.config["checkpoint"][name]) for name in ("monitor", "mode"))
        pruner = MedianPruner(n_startup_trials=FIRST_TO_PRUNE, n_warmup_steps=1)
        self._storage = _storage(self.folder)
        self.optuna = optuna.load_study(study_name=STUDY, storage=self._storage, pruner=pruner)
        self._lock = Lock(self.folder / "take")
        self._workers = Workers(self.folder / WORKERS)

    @classmethod
    def create(cls, home: Path, config: Mapping[str, Any], trial: Mapping[str, Any]) -> Self:
        """Makes a study.

        Args:
            home: Folder of the experiment.
            config: The whole configuration of the sweep.
            trial: What all trials share: a configuration of `fit`.

        Raises:
            FileExistsError: If there is one already, or another process has just been faster.
            UserError: If its folder holds other things.
            StorageError: If it can't be written.
        """
        make_folder(home, "choose another place with `runs_dir`")
        _remove_half(home / FOLDER)
        folder = home / f"{FOLDER}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            cls._make(folder, config, trial)
            with storing(home / FOLDER):
                folder.rename(home / FOLDER)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                home.rmdir()  # only if nothing is in it
            if isinstance(error, OSError | StorageError) and (home / FOLDER / CONFIG).is_file():
                raise FileExistsError(home / FOLDER) from None
            raise
        return cls(home)

    @staticmethod
    def _make(folder: Path, config: Mapping[str, Any], trial: Mapping[str, Any]) -> None:
        """Writes the files of a study that nobody knows yet."""
        make_folder(folder)
        with storing(folder / JOURNAL):
            (folder / JOURNAL).touch()
        least = config["checkpoint"]["mode"] == "min"
        optuna.create_study(study_name=STUDY, storage=_storage(folder), direction="minimize" if least else "maximize")
        replace_text(folder / TRIAL, yaml.safe_dump(dict(trial), sort_keys=False))
        replace_text(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials by number, each at its last attempt; those that are to be tried anew are left out."""
        attempts = self.optuna.get_trials(deepcopy=False)
        last = {trial.user_attrs[NUMBER]: trial for trial in attempts if trial.state != TrialState.WAITING}
        return [last[number] for number in sorted(last) if LOST not in last[number].user_attrs]

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that have a result."""
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    def left(self) -> int:
        """How many trials are still to be begun, or run."""
        self.collect_dead()
        return self.settings.trials - sum(trial.state.is_finished() for trial in self._counting())

    def take(self) -> Trial | None:
        """Takes the next trial, with its settings drawn; None where none is left, or there is no hope."""
        with self._alone():
            self._collect_dead()
            taken = {trial.user_attrs[NUMBER] for trial in self.trials}
            free = [number for number in range(self.settings.trials) if number not in taken]
            if not free or self.hopeless():
                return None
            attempts = self.optuna.get_trials(deepcopy=False)
            starved = {each.user_attrs[NUMBER] for each in attempts if each.user_attrs.get(LOST) == STARVED}
            number = min(free, key=lambda number: (number in starved, number))  # there may be more memory later
            self.optuna.enqueue_trial(self._known(number), {NUMBER: number})
            trial = self._draw(number)
            self._take_up(trial, number)
            trial.set_user_attr(OWNER, self._workers.owner())
            return trial

    def report(self, trial: Trial, value: float, step: int) -> bool:
        """Notes a value on the way; returns whether the trial is worse than the median of those before."""
        # it was taken for dead; or a run that goes on repeats an epoch
        with suppress(optuna.exceptions.UpdateFinishedTrialError), warnings.catch_warnings(action="ignore"):
            trial.report(value, step)
        return trial.should_prune()

    def tell(self, trial: Trial, value: float, pruned: bool = False) -> None:
        """Records the result of a trial; if it is the best one, its configuration is written.

        Args:
            trial: The trial.
            value: The best value of the metric.
            pruned: Whether it ended early.
        """
        with self._alone():
            if not self._is_running(trial):
                return
            state = TrialState.PRUNED if pruned else TrialState.COMPLETE
            self.optuna.tell(trial, None if pruned else value, state)
            self._write_best()

    def fail(self, trial: Trial, reason: str, interrupted: bool = False, starved: bool = False) -> None:
        """Records that a trial has failed.

        Args:
            trial: The trial.
            reason: Why, in one line.
            interrupted: Whether it only was stopped, or found no room on the disk, and is to go on.
            starved: Whether it found no memory, and is to go on, unless that has come too often.
        """
        with self._alone():
            if self._is_running(trial):
                frozen = self.optuna.get_trials(deepcopy=False)[trial.number]
                self._end(frozen, reason, STOPPED if interrupted else STARVED if starved else None)

    def write_best(self) -> None:
        """Writes the configuration of the best trial, where a process was stopped before it had done so.

        Raises:
            StorageError: If it can't be written.
        """
        with self._alone():
            self._write_best()

    def collect_dead(self) -> None:
        """Counts the attempts whose process is gone as lost; their trials are there to take again."""
        with self._alone():
            self._collect_dead()

    def hopeless(self) -> str | None:
        """Why to give up: all trials so far have failed, for the same reason."""
        done = [trial for trial in self.trials if trial.state.is_finished()]
        reasons = {trial.user_attrs.get(REASON) for trial in done}
        failed = all(trial.state == TrialState.FAIL for trial in done)
        enough = len(done) >= min(HOPELESS, self.settings.trials)
        return reasons.pop() if failed and enough and len(reasons) == 1 else None

    def run_folder(self, trial: Trial | FrozenTrial) -> Path:
        """The run folder of a trial, which need not be there yet."""
        return self.home / str(trial.user_attrs[RUN])

    def ended_run(self, trial: Trial) -> RunFolder | None:
        """The run of a trial where that has come to its end, None where it is to be trained."""
        folder = self.run_folder(trial)
        return RunFolder.open(folder) if _status(folder) in ("finished", "pruned") else None

    def fields(self, trial: Trial) -> dict[str, Any]:
        """The fields of a trial, over the configuration that all trials share."""
        drawn = [setting(name, value) for name, value in trial.params.items()]
        place = {"runs_dir": str(self.home.parent), "experiment": self.home.name}
        return {name: value for each in (place, *drawn) for name, value in each.items()}

    def giving_signs(self) -> AbstractContextManager[None]:
        """Gives signs of life of this process, for processes on other machines."""
        return self._workers.signing()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes from taking and ending trials, and signals from doing so half."""
        with noting():
            self._lock.acquire()
            try:
                yield
            finally:
                self._lock.release()

    def _counting(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.user_attrs[NUMBER] < self.settings.trials]

    def _known(self, number: int) -> dict[str, Any]:
        """The settings of a trial as far as they are known before: those of an earlier attempt, or of a grid."""
        for attempt in reversed(self.optuna.get_trials(deepcopy=False)):
            # of one that died while it drew them some are missing, and would not be drawn as they were
            if attempt.user_attrs[NUMBER] == number and len(attempt.params) == len(self.settings.space):
                return attempt.params
        return self.settings.combination(number)

    def _draw(self, number: int) -> Trial:
        """Begins the trial that waits; a random sampler draws the same for its number, whoever takes it."""
        seed = int(np.random.SeedSequence([self.settings.sampler_seed, number]).generate_state(1)[0])
        self.optuna.sampler = TPESampler(seed=seed) if self.settings.sampler == "tpe" else RandomSampler(seed=seed)
        trial = self.optuna.ask()
        for dimension in self.settings.space:
            dimension.suggest(trial)
        return trial

    def _take_up(self, trial: Trial, number: int) -> None:
        """Gives a trial its run folder: that of an earlier attempt, whose run can go on, or a new one."""
        attempts = [each for each in self.optuna.get_trials(deepcopy=False) if RUN in each.user_attrs]
        taken = {each.user_attrs[RUN] for each in attempts}
        earlier = [each for each in attempts if each.user_attrs[NUMBER] == number]
        if earlier and _can_go_on(self.run_folder(earlier[-1]), earlier[-1].user_attrs.get(LOST)):
            trial.set_user_attr(RUN, earlier[-1].user_attrs[RUN])
            for step, value in sorted(earlier[-1].intermediate_values.items()):
                trial.report(value, step)
            return
        while (name := new_folder(self.home.parent, self.home.name).name) in taken:
            pass
        trial.set_user_attr(RUN, name)

    def _collect_dead(self) -> None:
        # one that waits was left by a process that died when it was taking it
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._storage.set_trial_user_attr(trial._trial_id, LOST, STOPPED)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_alive(trial):
                continue
            owner = _owner(trial)  # None where it died before it began: it said so under the lock
            if owner is not None and self._workers.was_killed(owner):
                self._end(trial, "its process died", KILLED)
            else:
                self._end(trial, "its process was stopped", STOPPED)
            if owner is not None:
                self._workers.forget(owner)

    def _end(self, trial: FrozenTrial, reason: str, lost: str | None) -> None:
        """Ends an attempt, and with it the trial where nothing is lost, or where that has come too often."""
        reason = " ".join(reason.split())
        if lost in (KILLED, STARVED):
            attempts = self.optuna.get_trials(deepcopy=False)
            number = trial.user_attrs[NUMBER]
            others = [each for each in attempts if each.user_attrs[NUMBER] == number and each.number != trial.number]
            times = 1 + sum(each.user_attrs.get(LOST) in (KILLED, STARVED) for each in others)
            reason += f" ({times} of {LOST_TIMES} times)"
            lost = lost if times < LOST_TIMES else None
        if lost is not None:
            self._storage.set_trial_user_attr(trial._trial_id, LOST, lost)
        self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        self.optuna.tell(trial.number, state=TrialState.FAIL)

    def _is_running(self, trial: Trial) -> bool:
        """Whether a trial still counts as running; one that gave no sign of life for long was given to another."""
        return self.optuna.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING

    def _is_alive(self, trial: FrozenTrial) -> bool:
        owner = _owner(trial)
        if owner is None:
            return False
        # its run may have given a sign later: it could not go on yet
        return self._workers.lives(owner) or _status(self.run_folder(trial)) == "running"

    def _write_best(self) -> None:
        if self.finished:
            write_best(self.home, self.monitor, self.optuna.best_trial, self.config)


def _owner(trial: FrozenTrial) -> dict[str, Any] | None:
    """The process that has taken a trial; None where it has not said so, or an earlier version has."""
    owner = trial.user_attrs.get(OWNER)
    return owner if owner is not None and "file" in owner else None


def _can_go_on(folder: Path, lost: str | None) -> bool:
    """Whether the run of a trial that has not come to its end is one to go on with, or has not begun."""
    status = _status(folder)
    return status != "running" and (status != "failed" or lost == STARVED)


def _status(folder: Path) -> str | None:
    """The status of a run, None where it has not begun; one that can't be read counts as failed."""
    try:
        return RunFolder.open(folder).status if (folder / RECORD).is_file() else None
    except UserError:
        return "failed"


def _remove_half(folder: Path) -> None:
    """Removes half a study: earlier versions of this program made one bit by bit, its configuration last."""
    found = [*folder.iterdir()] if folder.is_dir() else []
    if any(path.name == CONFIG for path in found):
        return
    for path in found:
        if path.is_dir() or not (path.name in HALF or is_half(path)):
            raise UserError(
                f"{folder} holds {path.name}, which is no part of a sweep: choose another `experiment` NAME"
            )
    with storing(folder):
        for path in found:
            path.unlink(missing_ok=True)


def _storage(folder: Path) -> JournalStorage:
    return JournalStorage(Journal(folder / JOURNAL))
