"""A study: its folder `runs/<name>/sweep/`, and its trials in a journal that any number of processes share.

The trials are numbered. A process takes the first number that nobody has, so that none is lost or taken twice; a trial
whose process has died, or was told to stop, counts as failed; its number is there to take again, and its run goes on.
"""

import shutil
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
import psutil
import yaml
from optuna import Trial
from optuna.pruners import MedianPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.resume.files import replace_text
from lightning_cnn.sweeps.search_space import as_word
from lightning_cnn.sweeps.settings import SETTINGS, SweepSettings
from lightning_cnn.tracking.run import CONFIG, GONE_SECONDS, RECORD, SIGN_SECONDS, Run, new_folder

FOLDER = "sweep"  # within that of the experiment, beside its runs
TRIAL = "trial.yaml"  # what all trials share
BEST = "best.yaml"
WORKERS = "workers"  # folder with a file for each process, whose time is its sign of life
STUDY = "sweep"  # its name in the journal, which has no other
# what is noted with a trial
NUMBER, OWNER, LOST, REASON, RUN = "number", "owner", "lost", "reason", "run"
LOST_TIMES = 3  # after which a trial whose process died each time is not tried again
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
            raise UserError(f"there is no sweep in {home}: start one with lightning-cnn sweep --search ...")
        self.config: dict[str, Any] = yaml.safe_load((self.folder / CONFIG).read_text())
        self.settings = SweepSettings(**{name: self.config[name] for name in SETTINGS})
        self.monitor, self.mode = (str(self.config["checkpoint"][name]) for name in ("monitor", "mode"))
        pruner = MedianPruner(n_startup_trials=FIRST_TO_PRUNE, n_warmup_steps=1)
        self._storage = _storage(self.folder)
        self.optuna = optuna.load_study(study_name=STUDY, storage=self._storage, pruner=pruner)
        self._lock = JournalFileOpenLock(str(self.folder / "take"))

    @classmethod
    def create(cls, home: Path, config: Mapping[str, Any], trial: Mapping[str, Any]) -> Self:
        """Makes a study.

        Args:
            home: Folder of the experiment.
            config: The whole configuration of the sweep.
            trial: What all trials share: a configuration of `fit`.
        """
        folder = home / FOLDER
        shutil.rmtree(folder, ignore_errors=True)  # of one that never began
        folder.mkdir(parents=True)
        least = config["checkpoint"]["mode"] == "min"
        optuna.create_study(study_name=STUDY, storage=_storage(folder), direction="minimize" if least else "maximize")
        replace_text(folder / TRIAL, yaml.safe_dump(dict(trial), sort_keys=False))
        replace_text(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))  # the last: now it is there
        return cls(home)

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

    def at_work(self) -> list[FrozenTrial]:
        """The trials that run now."""
        self.collect_dead()
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    def take(self) -> Trial | None:
        """Takes the next trial, with its settings drawn; None where none is left, or there is no hope."""
        with self._alone():
            self._collect_dead()
            taken = {trial.user_attrs[NUMBER] for trial in self.trials}
            number = next((number for number in range(self.settings.trials) if number not in taken), None)
            if number is None or self.hopeless():
                return None
            # one that waits was left by a process that died right here
            if not self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                self.optuna.enqueue_trial(self._known(number), {NUMBER: number})
            trial = self._draw(number)
            self._take_up(trial, number)
            trial.set_user_attr(OWNER, _this_process())
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
            if not pruned and self.optuna.best_trial.number == trial.number:
                self._write_best(trial.user_attrs[RUN], value)

    def fail(self, trial: Trial, reason: str, interrupted: bool = False) -> None:
        """Records that a trial has failed.

        Args:
            trial: The trial.
            reason: Why, in one line.
            interrupted: Whether it only was stopped, and is to go on.
        """
        with self._alone():
            if self._is_running(trial):
                trial.set_user_attr(REASON, " ".join(reason.split()))
                if interrupted:
                    trial.set_user_attr(LOST, "interrupted")
                self.optuna.tell(trial, state=TrialState.FAIL)

    def collect_dead(self) -> None:
        """Counts the trials whose process has died as failed; they are there to take again."""
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

    def words(self, trial: Trial) -> list[str]:
        """The words of the command line that train a trial, behind `fit`."""
        place = ["--runs_dir", str(self.home.parent), "--experiment", self.home.name]
        return ["--config", str(self.folder / TRIAL), *place, *setting_words(trial.params)]

    @contextmanager
    def giving_signs(self) -> Iterator[None]:
        """Gives signs of life of this process, for processes on other machines."""
        file = _sign(self.folder, _this_process())
        file.parent.mkdir(exist_ok=True)
        over = threading.Event()

        def give_signs() -> None:
            while not over.wait(SIGN_SECONDS):
                with suppress(OSError):
                    file.touch()

        file.touch()
        threading.Thread(target=give_signs, daemon=True).start()
        try:
            yield
        finally:
            over.set()
            file.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes from taking and ending trials."""
        self._lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # it was taken from a process that held it for half a minute
                self._lock.release()

    def _counting(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.user_attrs[NUMBER] < self.settings.trials]

    def _known(self, number: int) -> dict[str, Any]:
        """The settings of a trial as far as they are known before: those of an earlier attempt, or of a grid."""
        for attempt in reversed(self.optuna.get_trials(deepcopy=False)):
            if attempt.user_attrs[NUMBER] == number and attempt.params:
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
        if earlier and _can_go_on(self.run_folder(earlier[-1])):
            trial.set_user_attr(RUN, earlier[-1].user_attrs[RUN])
            for step, value in sorted(earlier[-1].intermediate_values.items()):
                trial.report(value, step)
            return
        while (name := new_folder(self.home.parent, self.home.name).name) in taken:
            pass
        trial.set_user_attr(RUN, name)

    def _collect_dead(self) -> None:
        attempts = self.optuna.get_trials(deepcopy=False)
        for trial in attempts:
            if trial.state != TrialState.RUNNING or self._is_alive(trial):
                continue
            same = [other for other in attempts if other.user_attrs[NUMBER] == trial.user_attrs[NUMBER]]
            times = 1 + sum(other.user_attrs.get(LOST) == "killed" for other in same)
            if times < LOST_TIMES:
                self._storage.set_trial_user_attr(trial._trial_id, LOST, "killed")
            self._storage.set_trial_user_attr(
                trial._trial_id, REASON, f"its process died ({times} of {LOST_TIMES} times)"
            )
            self.optuna.tell(trial.number, state=TrialState.FAIL)

    def _is_running(self, trial: Trial) -> bool:
        """Whether a trial still counts as running; one that gave no sign of life for long was given to another."""
        return self.optuna.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING

    def _is_alive(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(OWNER)
        if owner is None:  # it died between taking the trial and saying so: both happen under the lock
            return False
        if owner["host"] == socket.gethostname():
            return _lives(owner)
        clock = self.folder / WORKERS / ".clock"  # by the clock of the file system, which is one for all machines
        try:
            clock.touch()
            return clock.stat().st_mtime - _sign(self.folder, owner).stat().st_mtime < GONE_SECONDS
        except FileNotFoundError:
            return False

    def _write_best(self, run: str, value: float) -> None:
        config = yaml.safe_load((self.home / run / CONFIG).read_text())
        config |= {"experiment": f"{self.home.name}_best", "runs_dir": self.config["runs_dir"]}
        kept = ("enable_progress_bar", "enable_model_summary", "devices")  # a trial has none, and one device
        config["trainer"] |= {name: self.config["trainer"][name] for name in kept}
        comment = f"# The best trial of {self.home.name}: {self.monitor} {value:.6g} in run {run}\n"
        replace_text(self.home / BEST, comment + yaml.safe_dump(config, sort_keys=False))


def find_study(name: str, runs_dir: Path) -> Study:
    """The study that a user means by the folder or the name of an experiment.

    Raises:
        UserError: If there is none.
    """
    for home in (runs_dir / name, Path(name), Path(name).parent):
        if (home / FOLDER / CONFIG).is_file():
            return Study(home)
    known = [path.parents[1].name for path in runs_dir.glob(f"*/{FOLDER}/{CONFIG}")]
    hint = did_you_mean(Path(name).name, known) or (f"; there are {', '.join(known)}" if known else "")
    raise UserError(f"no sweep {name!r} under {runs_dir}/{hint}")


def setting_words(values: Mapping[str, Any]) -> list[str]:
    """Values of the searched settings, as one types them on the command line."""
    return [word for name, value in values.items() for word in (f"--{name}", as_word(value))]


def _can_go_on(folder: Path) -> bool:
    """Whether the run of a trial that has not come to its end is one to go on with, or has not begun."""
    try:
        return not (folder / RECORD).is_file() or Run.open(folder).status not in ("running", "failed")
    except UserError:
        return False


def _storage(folder: Path) -> JournalStorage:
    path = str(folder / "journal.log")
    return JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


def _lives(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is there, and not another one with its number."""
    try:
        process = psutil.Process(owner["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - owner["started"]) < 2
    except psutil.NoSuchProcess:
        return False


def _sign(folder: Path, owner: Mapping[str, Any]) -> Path:
    return folder / WORKERS / f"{owner['host']}-{owner['pid']}"
