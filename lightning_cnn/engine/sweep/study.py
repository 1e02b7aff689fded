"""A study: its folder `runs/<name>/sweep/`, and its trials in a journal that any number of processes share.

The trials are numbered. A process takes the first number that nobody has, so that none is lost or taken twice. An
attempt whose process was told to stop, has died, or found no room on the disk or in memory counts as lost: its number
is there to take again, and its run goes on. Only those that died or found no memory are counted, and fail in the end.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna import Trial
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_cnn.config.layers import read_yaml
from lightning_cnn.engine.parts import ONE_DEVICE
from lightning_cnn.engine.sweep.journal import Journal, Lock
from lightning_cnn.engine.sweep.search_space import setting
from lightning_cnn.engine.sweep.settings import settings_of
from lightning_cnn.engine.sweep.workers import Workers
from lightning_cnn.errors import UserError
from lightning_cnn.resume.files import replace_text
from lightning_cnn.resume.signals import deferring_signals
from lightning_cnn.tracking.record import CONFIG, RECORD, SWEEP, new_folder
from lightning_cnn.tracking.run import RunFolder

FOLDER = SWEEP
TRIAL = "trial.yaml"  # what all trials share
JOURNAL = "journal.log"
WORKERS = "workers"  # folder with a file for each process, whose time is its sign of life
BEST = "best.yaml"  # the configuration of the best trial, to be trained and tested
STUDY = "sweep"  # its name in the journal, which has no other
# what is noted with a trial
NUMBER, RUN, OWNER, LOST, REASON = "number", "run", "owner", "lost", "reason"
# the ways in which an attempt can be lost; the last two are counted
STOPPED, KILLED, STARVED = "interrupted", "killed", "starved"
LOST_TIMES = 3  # after which a trial that was killed or starved each time is not tried again
FAILURES_TO_STOP = 3  # trials that fail for one and the same reason, with none that succeeds, end the sweep
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
        self.config: dict[str, Any] = read_yaml(self.folder / CONFIG)
        self.settings = settings_of(self.config)
        self.monitor, self.mode = (str(self.config["checkpoint"][name]) for name in ("monitor", "mode"))
        pruner = MedianPruner(n_startup_trials=FIRST_TO_PRUNE, n_warmup_steps=1)
        self._storage = storage(self.folder)
        self.optuna = optuna.load_study(study_name=STUDY, storage=self._storage, pruner=pruner)
        self._lock = Lock(self.folder / "take")
        self.workers = Workers(self.folder / WORKERS)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials by number, each at its last attempt; those that are to be tried anew are left out."""
        last = {each.user_attrs[NUMBER]: each for each in self._attempts() if each.state != TrialState.WAITING}
        return [last[number] for number in sorted(last) if LOST not in last[number].user_attrs]

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that have a result."""
        return [trial for trial in self.trials if trial.state == TrialState.COMPLETE]

    def left(self) -> int:
        """How many trials are still to be begun, or run."""
        with self.alone():
            self._collect_ended()
        counting = [trial for trial in self.trials if trial.user_attrs[NUMBER] < self.settings.trials]
        return self.settings.trials - sum(trial.state.is_finished() for trial in counting)

    def take(self) -> Trial | None:
        """Takes the next trial, with its settings sampled; None where none is left, or there is no hope."""
        with self.alone():
            self._collect_ended()
            taken = {trial.user_attrs[NUMBER] for trial in self.trials}
            free = [number for number in range(self.settings.trials) if number not in taken]
            if not free or self.reason_to_stop():
                return None
            starved = {each.user_attrs[NUMBER] for each in self._attempts() if each.user_attrs.get(LOST) == STARVED}
            number = min(free, key=lambda number: (number in starved, number))  # there may be more memory later
            self.optuna.enqueue_trial(self._known(number), {NUMBER: number})
            trial = self._sample(number)
            self._take_up(trial, number)
            trial.set_user_attr(OWNER, self.workers.owner())
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
        with self.alone():
            if not self._is_running(trial):
                return
            state = TrialState.PRUNED if pruned else TrialState.COMPLETE
            self.optuna.tell(trial, None if pruned else value, state)
            self.write_best()

    def fail(self, trial: Trial, reason: str, lost: str | None = None) -> None:
        """Records that a trial has failed.

        Args:
            trial: The trial.
            reason: Why, in one line.
            lost: Why it is to go on: `STOPPED`, also where it found no room on the disk, or `STARVED`, where it
                found no memory, unless that has come too often. None where it is not to go on.
        """
        with self.alone():
            if self._is_running(trial):
                self._end(self._attempts()[trial.number], reason, lost)

    def write_best(self) -> None:
        """Writes the configuration of the best trial, unless it is there; only where this process is alone.

        Raises:
            StorageError: If it can't be written, or the run of the trial is gone.
        """
        if not self.finished:
            return
        best = self.optuna.best_trial
        run = self.run_folder(best)
        comment = f"# The best trial of {self.home.name}: {self.monitor} {best.value:.6g} in run {run.name}\n"
        with suppress(FileNotFoundError):
            if (self.home / BEST).read_text("utf-8").startswith(comment):
                return
        content = read_yaml(run / CONFIG)
        content |= {"experiment": f"{self.home.name}_best", "runs_dir": self.config["runs_dir"]}
        content["trainer"] |= {name: self.config["trainer"][name] for name in ONE_DEVICE}
        replace_text(self.home / BEST, comment + yaml.safe_dump(content, sort_keys=False))

    def reason_to_stop(self) -> str | None:
        """Why to give up: all trials so far have failed, for the same reason."""
        done = [trial for trial in self.trials if trial.state.is_finished()]
        reasons = {trial.user_attrs.get(REASON) for trial in done}
        failed = all(trial.state == TrialState.FAIL for trial in done)
        enough = len(done) >= min(FAILURES_TO_STOP, self.settings.trials)
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
        sampled = [setting(name, value) for name, value in trial.params.items()]
        place = {"runs_dir": str(self.home.parent), "experiment": self.home.name}
        return {name: value for each in (place, *sampled) for name, value in each.items()}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from taking and ending trials, and signals from doing so half."""
        with deferring_signals():
            self._lock.acquire()
            try:
                yield
            finally:
                self._lock.release()

    def _attempts(self, number: int | None = None) -> list[FrozenTrial]:
        """All attempts, the oldest first, or those of one trial."""
        attempts = self.optuna.get_trials(deepcopy=False)
        return [each for each in attempts if number in (None, each.user_attrs[NUMBER])]

    def _known(self, number: int) -> dict[str, Any]:
        """The settings of a trial as far as they are known before: those of an earlier attempt, or of a grid."""
        for attempt in reversed(self._attempts(number)):
            # of one that died while it sampled them some are missing, and would not be sampled as they were
            if len(attempt.params) == len(self.settings.space):
                return attempt.params
        return self.settings.combination(number)

    def _sample(self, number: int) -> Trial:
        """Begins the trial that waits; a random sampler draws the same for its number, whoever takes it."""
        seed = int(np.random.SeedSequence([self.settings.sampler_seed, number]).generate_state(1)[0])
        self.optuna.sampler = TPESampler(seed=seed) if self.settings.sampler == "tpe" else RandomSampler(seed=seed)
        return self.optuna.ask(self.settings.space)

    def _take_up(self, trial: Trial, number: int) -> None:
        """Gives a trial its run folder: that of an earlier attempt, whose run can go on, or a new one."""
        taken = {each.user_attrs.get(RUN) for each in self._attempts()}
        earlier = [each for each in self._attempts(number) if RUN in each.user_attrs]
        if earlier and _can_go_on(self.run_folder(earlier[-1]), earlier[-1].user_attrs.get(LOST)):
            trial.set_user_attr(RUN, earlier[-1].user_attrs[RUN])
            for step, value in sorted(earlier[-1].intermediate_values.items()):
                trial.report(value, step)
            return
        while (name := new_folder(self.home.parent, self.home.name).name) in taken:
            pass
        trial.set_user_attr(RUN, name)

    def _collect_ended(self) -> None:
        # one that waits was left by a process that died when it was taking it
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._storage.set_trial_user_attr(trial._trial_id, LOST, STOPPED)
            self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_alive(trial):
                continue
            owner = _owner(trial)  # None where it died before it began: it said so under the lock
            killed = owner is not None and self.workers.was_killed(owner)
            self._end(trial, f"its process {'died' if killed else 'was stopped'}", KILLED if killed else STOPPED)
            if owner is not None:
                self.workers.forget(owner)

    def _end(self, trial: FrozenTrial, reason: str, lost: str | None) -> None:
        """Ends an attempt, and with it the trial where nothing is lost, or where that has come too often."""
        reason = " ".join(reason.split())
        if lost in (KILLED, STARVED):
            earlier = self._attempts(trial.user_attrs[NUMBER])
            times = 1 + sum(each.user_attrs.get(LOST) in (KILLED, STARVED) for each in earlier)
            reason += f" ({times} of {LOST_TIMES} times)"
            lost = lost if times < LOST_TIMES else None
        if lost is not None:
            self._storage.set_trial_user_attr(trial._trial_id, LOST, lost)
        self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        self.optuna.tell(trial.number, state=TrialState.FAIL)

    def _is_running(self, trial: Trial) -> bool:
        """Whether a trial still counts as running; one that gave no sign of life for long was given to another."""
        return self._attempts()[trial.number].state == TrialState.RUNNING

    def _is_alive(self, trial: FrozenTrial) -> bool:
        # its run may have given a sign later: it could not go on yet
        owner = _owner(trial)
        return owner is not None and (self.workers.is_running(owner) or _status(self.run_folder(trial)) == "running")


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


def storage(folder: Path) -> JournalStorage:
    """The trials in the folder of a study."""
    return JournalStorage(Journal(folder / JOURNAL))
