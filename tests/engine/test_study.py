"""The trials that processes share: none is lost or taken twice, and those of dead processes are tried anew."""

import errno
import os
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from lightning_cnn.engine.sweep import studies
from lightning_cnn.engine.sweep.journal import Journal, Lock
from lightning_cnn.engine.sweep.search_space import as_word, parse_search, setting
from lightning_cnn.engine.sweep.settings import SWEEP, SweepSettings
from lightning_cnn.engine.sweep.studies import create_study
from lightning_cnn.engine.sweep.study import KILLED, NUMBER, REASON, STARVED, STOPPED, Study
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.resume.heartbeat import TIMEOUT_SECONDS, Holder
from lightning_cnn.resume.signals import deferring_signals, handling_signals, received
from lightning_cnn.tracking.run import RunFolder

SEARCH = ["model.lr=log(1e-4,1e-1)", "data.batch_size=[32,128]", "model.depth=int(2,4)"]
GONE = Holder(1, "elsewhere", "elsewhere", flock=False)


def create(home: Path, **settings: Any) -> bool:
    """Makes a study, as `sweep` would; returns whether there was none."""
    trainer = {"enable_progress_bar": None, "enable_model_summary": None, "devices": "auto"}
    config = {"checkpoint": {"monitor": "val/loss", "mode": "min"}, "trainer": trainer, "runs_dir": None}
    defaults = {"search": SEARCH, "trials": 4, "sampler": "random", "sampler_seed": 0, "prune": False, "jobs": 1}
    assert defaults.keys() == {*SWEEP.fields}
    return create_study(home, config | defaults | settings, {"trainer": trainer})


def make(home: Path, **settings: Any) -> Study:
    """A new study."""
    assert create(home, **settings)
    return Study(home)


def be(other: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is another one."""
    monkeypatch.setattr(Holder, "here", lambda flock: other)


def at_work(study: Study) -> list[FrozenTrial]:
    """The trials that run now."""
    study.left()
    return [trial for trial in study.trials if trial.state == TrialState.RUNNING]


def finish(study: Study, number: int, value: float = 1.0, **how: Any) -> None:
    """Takes the next trial, which must have that number, and gives it a run and a result."""
    trial = study.take()
    assert trial is not None and trial.user_attrs[NUMBER] == number
    run = study.run_folder(trial)
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"model": dict(trial.params), "trainer": {"devices": 1}}))
    study.tell(trial, value, **how)


@pytest.mark.parametrize("name", ["notes.txt", "workers/notes.txt"])
def test_a_folder_of_the_user_is_no_study(name: str) -> None:
    path = Path("mine/sweep", name)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match=f"mine/sweep contains {name.split('/')[0]}, which is not part of a sweep: use"):
        make(Path("mine"))
    assert path.read_text() == "mine" and list(Path("mine").iterdir()) == [Path("mine/sweep")]


def hold(home: Path, began: Event, told: Event) -> None:
    """Takes a trial and does not come to its end, whatever it is told."""
    with handling_signals(), deferring_signals():
        study = Study(home)
        with study.workers.heartbeat():
            study.take()
            began.set()
            while True:
                time.sleep(0.02)
                if received():
                    told.set()


def share(home: Path, dies: bool, began: Event) -> None:
    """What one of several processes does; one dies within its first trial, and the others begin only then."""
    study = Study(home)
    if not dies:
        assert began.wait(200)
    with study.workers.heartbeat():
        while (trial := study.take()) is not None:
            if dies:
                began.set()
                os._exit(1)
            study.fail(trial, "done")


def test_several_processes_share_the_trials() -> None:
    home = Path("shared")
    study = make(home, trials=24)
    finish(study, 0)  # so that there is hope
    fork = get_context("fork")
    began = fork.Event()
    processes = [fork.Process(target=share, args=(home, number == 0, began)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    assert [process.exitcode for process in processes] == [1, 0, 0]
    assert study.left() in (0, 1)  # the dead one's is left, if the others were done by then
    while (trial := study.take()) is not None:
        study.fail(trial, "done")
    attempts = study.optuna.get_trials(deepcopy=False)
    assert len(attempts) == 25 and all(attempt.state.is_finished() for attempt in attempts)
    numbers = [attempt.user_attrs[NUMBER] for attempt in attempts]
    (twice,) = {number for number in numbers if numbers.count(number) > 1}
    first, second = [attempt for attempt in attempts if attempt.user_attrs[NUMBER] == twice]
    assert first.params == second.params and first.user_attrs["lost"] == "killed"
    assert [trial.user_attrs[NUMBER] for trial in study.trials] == [*range(24)] and study.left() == 0


def test_a_trial_whose_process_dies_is_tried_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(Path("home"), trials=2)
    taken = []
    for _ in range(3):
        with monkeypatch.context() as elsewhere:
            be(GONE, elsewhere)
            other = Study(study.home)
            taken.append(other.take())
        (sign,) = study.folder.glob("workers/*-*")
        os.utime(sign, (0, sign.stat().st_mtime - 2 * TIMEOUT_SECONDS))  # its last one
    assert [trial.user_attrs[NUMBER] for trial in taken if trial] == [0, 0, 0]
    assert len({str(trial.params) for trial in taken if trial}) == 1
    finish(study, 1)
    assert study.take() is None
    dead, done = study.trials
    assert dead.state == TrialState.FAIL and "died (3 of 3 times)" in dead.user_attrs[REASON]
    assert done.state == TrialState.COMPLETE


@pytest.mark.parametrize("warned", [True, False])
def test_only_a_process_that_dies_without_warning_is_counted(warned: bool) -> None:
    """What Slurm does: a signal, and the end half a minute later, whatever the process is doing."""
    study = make(Path("home"))
    fork = get_context("fork")
    began, told = fork.Event(), fork.Event()
    process = fork.Process(target=hold, args=(study.home, began, told))
    process.start()
    assert process.pid is not None and began.wait(100)
    assert len(at_work(study)) == 1
    if warned:
        os.kill(process.pid, signal.SIGTERM)
        assert told.wait(10)
    process.kill()
    process.join()
    assert study.left() == 4 and study.trials == []
    (attempt,) = study.optuna.get_trials()
    assert attempt.user_attrs["lost"] == (STOPPED if warned else KILLED)
    assert not [*(study.folder / "workers").glob("[!.]*")]
    again = study.take()
    assert again is not None and again.params == attempt.params


def test_a_job_that_is_started_again_knows_its_former_self(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(Path("home"))
    first = Holder(1, "a", "a", job="7", flock=False)
    with monkeypatch.context() as elsewhere:
        be(first, elsewhere)
        with study.workers.heartbeat():
            study.take()
            for other in (replace(first, kernel="b"), replace(first, kernel="b", job="8", starts=1)):
                be(other, elsewhere)
                assert len(at_work(study)) == 1
            be(replace(first, kernel="b", starts=1), elsewhere)
            assert at_work(study) == []


def test_half_a_line_in_the_journal_is_passed_over() -> None:
    """What a process leaves that dies while it writes, or finds the disk full in the midst of it."""
    study = make(Path("home"))
    finish(study, 0, 0.5)
    with (study.folder / "journal.log").open("a") as file:
        file.write('{"op_code":4,"worker_id":"x","study')
    other = Study(study.home)
    assert [trial.value for trial in other.finished] == [0.5]
    finish(other, 1, 0.4)
    finish(study, 2, 0.3)
    for each in (study, other, Study(study.home)):
        assert [trial.value for trial in each.finished] == [0.5, 0.4, 0.3] and each.left() == 1


class Died(BaseException):
    """The end of a process, as far as it leaves its traces in a journal."""


def test_a_process_may_die_at_any_entry_of_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between two that belong together; the settings sampled stay the same, and each trial is there once."""
    undisturbed, study = make(Path("undisturbed")), make(Path("home"))
    for number in range(4):
        finish(undisturbed, number)
    append, left = Journal.append_logs, 0

    def die(journal: Journal, logs: list[dict[str, Any]]) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Died
        append(journal, logs)

    monkeypatch.setattr(Journal, "append_logs", die)
    entries = 1
    while study.left():
        left = entries
        try:
            with study.workers.heartbeat():
                trial = study.take()
                assert trial is not None
                run = study.run_folder(trial)
                run.mkdir(exist_ok=True)
                (run / "config.yaml").write_text("trainer: {}")
                study.tell(trial, 1.0)
            entries = 1
        except Died:
            left, entries = 0, entries + 1
            study = Study(study.home)
    found = [[trial.params for trial in each.trials] for each in (undisturbed, study)]
    assert found[0] == found[1] and len(found[0]) == 4
    assert len(study.optuna.get_trials()) > 20 and len([*study.home.glob("2*")]) == 4


def test_a_lock_falls_with_its_process() -> None:
    """Optuna's is kept for half a minute."""
    study = make(Path("home"))
    for name in ("take", "journal.log"):
        (study.folder / f"{name}.lock").write_text(socket.gethostname())
    began = time.monotonic()
    finish(study, 0)
    assert time.monotonic() - began < 10
    assert not [*study.folder.glob("*.lock")]


def test_a_full_disk_leaves_the_journal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(Path("home"))
    finish(study, 0)
    before = (study.folder / "journal.log").read_bytes()
    with monkeypatch.context() as full:

        def refuse(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=r"journal\.log.*the disk is full"):
            study.take()
    assert (study.folder / "journal.log").read_bytes() == before
    finish(study, 1)
    assert study.left() == 2


def test_a_trial_without_memory_comes_after_the_others() -> None:
    study = make(Path("home"), trials=3)
    for number in (0, 1, 2, 0, 0):
        trial = study.take()
        assert trial is not None and trial.user_attrs[NUMBER] == number
        study.fail(trial, "no memory", STARVED if number == 0 else None)
    assert study.left() == 0 and study.trials[0].user_attrs[REASON] == "no memory (3 of 3 times)"


def test_of_two_that_begin_a_study_one_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    faster: list[Any] = []
    make_files = studies.make_files

    def slow(folder: Path, config: Any, trial: Any) -> None:
        make_files(folder, config, trial)
        if not faster:
            faster.append(None)
            make(Path("home"))

    monkeypatch.setattr(studies, "make_files", slow)
    assert not create(Path("home")) and not create(Path("home"))
    assert [path.name for path in Path("home").iterdir()] == ["sweep"] and Study(Path("home")).left() == 4


def test_a_process_elsewhere_is_known_by_its_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(Path("home"))
    with ExitStack() as signs:
        with monkeypatch.context() as elsewhere:
            be(GONE, elsewhere)
            signs.enter_context(study.workers.heartbeat())
            trial = study.take()
        (sign,) = study.folder.glob("workers/*-*")
        assert trial is not None and [each.number for each in at_work(study)] == [trial.number]
        with monkeypatch.context() as ahead:
            ahead.setattr(time, "time", lambda: 1e10)  # the clock of this machine says nothing
            assert len(at_work(study)) == 1
        run = RunFolder.create(Path("."), "home", "", 0, study.run_folder(trial))  # whose sign is the later one
        run.record.host = GONE.host
        run.save()
        os.utime(sign, (0, sign.stat().st_mtime - 2 * TIMEOUT_SECONDS))
        assert len(at_work(study)) == 1
        run.finish("interrupted")
        assert at_work(study) == []
    study.tell(trial, 0.1)  # too late: another one may have it
    assert study.finished == []


def test_an_interrupted_trial_is_there_to_take_again() -> None:
    study = make(Path("home"))
    trial = study.take()
    assert trial is not None
    study.fail(trial, "interrupted", STOPPED)
    again = study.take()
    assert again is not None and again.params == trial.params and again.user_attrs[NUMBER] == 0
    assert study.run_folder(again) == study.run_folder(trial)
    study.fail(again, "too large")
    assert study.left() == 3 and study.trials[0].user_attrs[REASON] == "too large"
    finish(study, 1)


def test_a_run_goes_on_where_it_can() -> None:
    study = make(Path("home"))
    folders = []
    for status in ("interrupted", "failed", "interrupted"):
        trial = study.take()
        assert trial is not None
        folders.append(study.run_folder(trial))
        before = study.optuna.get_trials()[-1].intermediate_values
        assert before == ({0: 0.5} if len(folders) == 2 else {})  # what the pruning knows of a run goes with it
        study.report(trial, 0.5, 0)
        study.report(trial, 0.7, 0)  # the epoch once more
        run = RunFolder.open(folders[-1]) if before else RunFolder.create(Path("."), "home", "", 0, folders[-1])
        run.finish(status)  # type: ignore[arg-type]
        study.fail(trial, "interrupted", STOPPED)
    assert folders[0] == folders[1] != folders[2]


def test_a_number_has_the_same_settings_whoever_takes_it() -> None:
    first, second = make(Path("first")), make(Path("second"))
    others = make(Path("others"), sampler_seed=1)
    taken = [[study.take() for _ in range(4)] for study in (first, second, others)]
    params = [[trial.params for trial in trials if trial] for trials in taken]
    assert params[0] == params[1] != params[2] and len({str(values) for values in params[0]}) == 4
    for values in params[0]:
        assert 1e-4 <= values["model.lr"] <= 0.1 and values["data.batch_size"] in (32, 128)
        assert values["model.depth"] in (2, 3, 4)


def test_a_grid_takes_every_combination_once() -> None:
    search = ["model.lr=[0.1,1e-2]", "model.depth=int(1,3)"]
    study = make(Path("home"), search=search, sampler="grid", trials=None)
    assert study.settings.trials == 6
    taken = [study.take() for _ in range(7)]
    found = [tuple(trial.params.values()) for trial in taken if trial]
    assert found == [(rate, depth) for rate in (0.1, 0.01) for depth in (1, 2, 3)]


def test_the_tree_of_parzen_estimators_learns() -> None:
    study = make(Path("home"), search=["model.lr=log(1e-4,1e-1)"], sampler="tpe", trials=30)
    while (trial := study.take()) is not None:
        study.run_folder(trial).mkdir()
        (study.run_folder(trial) / "config.yaml").write_text("trainer: {}")
        study.tell(trial, abs(trial.params["model.lr"] - 0.01))
    rates = [trial.params["model.lr"] for trial in study.trials]
    near = [0.004 < rate < 0.025 for rate in rates]
    assert sum(near[20:]) >= 7 > sum(near[:10])  # 27 % of the range


def test_the_best_finished_trial_is_written() -> None:
    study = make(Path("home"), trials=5)
    finish(study, 0, 0.5)
    finish(study, 1, 0.3)
    finish(study, 2, 0.4)
    trial = study.take()
    assert trial is not None and not study.report(trial, 0.1, 0)
    study.tell(trial, 0.1, pruned=True)
    best = Path("home/best.yaml").read_text()
    assert f"val/loss 0.3 in run {study.run_folder(study.trials[1]).name}" in best
    content = yaml.safe_load(best)
    assert content["model"] == study.trials[1].params and content["trainer"]["devices"] == "auto"
    assert [trial.state for trial in study.trials[2:]] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_the_first_trials_are_not_pruned() -> None:
    """Nor the first epoch of any: five must have finished, and the median of theirs is what counts."""
    study = make(Path("home"), trials=7, prune=True)
    pruned = []
    for value in (1, 2, 3, 4, 5, 9, 2):
        trial = study.take()
        assert trial is not None
        pruned.append([study.report(trial, value, step) for step in (0, 1)])
        study.run_folder(trial).mkdir()
        (study.run_folder(trial) / "config.yaml").write_text("trainer: {}")
        study.tell(trial, value)
    assert pruned == [[False, False]] * 5 + [[False, True], [False, False]]


def test_no_hope_without_a_success() -> None:
    study = make(Path("home"), trials=9)
    for reason in ("a", "b", "b"):
        trial = study.take()
        assert trial is not None
        study.fail(trial, reason)
    assert study.reason_to_stop() is None  # for different reasons
    study = make(Path("other"), trials=9)
    for _ in range(3):
        trial = study.take()
        assert trial is not None
        study.fail(trial, "no\nmemory")
    assert study.reason_to_stop() == "no memory" and study.take() is None


def test_values_are_typed_as_they_are_meant() -> None:
    where = parse_search(["model.x=[1e-5, 3, true, null, relu, [0.9, 0.99], '1e-3']"])["model.x"]
    assert isinstance(where, CategoricalDistribution) and where.choices == (
        1e-5,
        3,
        True,
        None,
        "relu",
        "[0.9, 0.99]",
        1e-3,
    )
    fields = [setting("model.x", value) for value in where.choices]
    assert fields == [{"model.x": value} for value in (1e-5, 3, True, None, "relu", [0.9, 0.99], 1e-3)]
    assert as_word(0.1) == "0.1"
    with pytest.raises(UserError, match="a sweep needs `search`"):
        SweepSettings([])


def test_a_lock_that_cannot_be_made_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has no room for the lock file: the next try, in the same process, must not wait for this one."""
    real = os.open

    def full(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("file.lock"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(os, "open", full)
        Lock(Path("file")).acquire()
    lock = Lock(Path("file"))
    assert lock.acquire()
    lock.release()


def test_a_lock_of_a_dead_machine_is_taken_over_and_closes_nothing_else() -> None:
    Path("file.lock").write_text("elsewhere")
    lock = Lock(Path("file"))
    lock._file.grace_period = 1
    lock.acquire()
    assert Path("file.lock").read_text() == socket.gethostname()
    with Path("mine").open("w") as mine:
        lock.release()
        mine.write("whole")
    assert Path("mine").read_text() == "whole" and not Path("file.lock").exists()


def test_a_signal_right_after_a_study_was_made_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def struck(folder: Path, target: Path) -> None:
        rename(folder, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", struck)
        make(Path("home"))
