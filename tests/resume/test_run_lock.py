"""One process at a time trains a run, and what a run that ends removes."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import racing
from run_folders import logged, only_run, record, write_run
from test_resumption import FEATURES
from trainings import CONTEXT, train

from lightning_cnn.cli import main
from lightning_cnn.cluster.slurm import Slurm, submit
from lightning_cnn.engine.recording import recorded
from lightning_cnn.engine.resumption import how_to_go_on
from lightning_cnn.engine.walkforward.fold import FoldJob
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.evaluation.returns.month_split import Fold
from lightning_cnn.resume import heartbeat
from lightning_cnn.resume.run_lock import RUN_FOLDER, RunLock, holder_of
from lightning_cnn.tracking.run import RunFolder

SYSTEMS = ("local", "lockless", "cluster")
TINY = ["fit", "--data", "Digits", "--model.architecture", "ffnn", "--trainer.accelerator", "cpu"]


def races(kind: str, system: str, count: int) -> list[list[str]]:
    """What the contenders of each race said."""
    command = [sys.executable, racing.__file__, kind, system, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(0)])])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ["resume", "create"])
def test_of_three_at_the_same_moment_one_gets_in(kind: str, system: str, count: int) -> None:
    found = races(kind, system, count)
    assert len(found) == count
    for said in found:
        assert sum(line.startswith("in ") for line in said) == 1, said
        assert all("is still being trained by" in line or line.startswith("in ") for line in said), said


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["resume", "create"])
def test_whole_trainings_race(kind: str) -> None:
    """Three real trainings of one run: one trains, with the rows of one; the others get a line, and destroy nothing."""
    for number in range(5):
        folder = Path(f"runs/raced/{number}").absolute()
        words = [*FEATURES, "--trainer.max_epochs", "2"]
        if kind == "resume":
            Path("crashed").unlink(missing_ok=True)
            stop = ["--trainer.callbacks+=disturbing.Crash", "--trainer.callbacks.batch", "30"]
            assert train([*words, *stop], environment={RUN_FOLDER: str(folder)}).codes == [1]
            words = ["fit", "--resume", str(folder)]
        place, processes = os.getcwd(), []
        for contender in range(3):
            arguments = (words, contender, place, kind, str(folder))
            processes.append(CONTEXT.Process(target=_training, args=arguments))
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        said = [Path(f"said_{contender}.txt").read_text() for contender in range(3)]
        codes = sorted(int(process.exitcode or 0) for process in processes)
        if codes == [0, 2, 2]:
            assert sum("is still being trained" in text for text in said) == 2, said
        else:  # one came when another had finished: it says so, or that there is nothing left to do
            assert codes in ([0, 0, 2], [0, 0, 0]), said
        steps = [row.split(",")[1] for row in logged(folder)[1:]]
        assert record(folder)["status"] == "finished" and steps == sorted(steps, key=int)
        print(number, codes, flush=True)


def _training(words: list[str], contender: int, place: str, kind: str, folder: str) -> None:
    os.chdir(place)
    with Path(f"said_{contender}.txt").open("w", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        sys.stdout = sys.stderr = out
        if kind == "create":
            os.environ[RUN_FOLDER] = folder
        sys.exit(main(words))


def test_looking_keeps_nobody_out() -> None:
    """`list` and `compare` look at a run while others take it."""
    code = "from pathlib import Path\nfrom lightning_cnn.resume.run_lock import holder_of\n"
    code += "while True: holder_of(Path('.'))"
    lookers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            lock = RunLock.take(Path("."))
            assert json.loads(lock.path.read_text())["flock"]
            lock.release()
    finally:
        for looker in lookers:
            looker.kill()
            looker.wait()


CHILDREN = """
import os, subprocess, sys, time
from pathlib import Path
from lightning_cnn.resume.run_lock import RunLock
lock = RunLock.take(Path("."))
if not os.fork():
    lock.release()  # as on the way out of a reader of data
    sys.exit()
os.wait()
forked = os.fork()
if not forked:
    time.sleep(60)
started = subprocess.Popen(["sleep", "60"], close_fds=False)
print(forked, started.pid, flush=True)
time.sleep(60)
"""


def test_children_neither_end_nor_inherit_a_lock() -> None:
    """As readers of data do, and W&B's service, which outlive a killed training."""
    process = subprocess.Popen([sys.executable, "-c", CHILDREN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()]
    try:
        holder = holder_of(Path("."))
        assert holder is not None and holder.pid == process.pid
        process.kill()
        process.wait()
        assert all(psutil.pid_exists(pid) for pid in children)
        end = time.monotonic() + 10  # on a busy machine a child may not have come to let go of it yet
        while holder_of(Path(".")) is not None and time.monotonic() < end:
            time.sleep(0.1)
        assert holder_of(Path(".")) is None
        RunLock.take(Path(".")).release()
        assert not list(Path(".").glob(".lock*"))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Path]]:
    """Makes the lock file of a process on another machine, whose last sign of life is so many seconds ago."""
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)
    monkeypatch.setattr(os, "utime", os.utime)
    racing.without_flock()
    racing.with_lagging_server(1000)

    def make(age: float) -> Path:
        path = Path(".lock-3")
        path.write_text(json.dumps({"pid": 1, "host": "far", "kernel": "far", "job": "7", "starts": 0, "flock": True}))
        os.utime(path, (time.time() - 1000 - age,) * 2)
        return path

    yield make


def test_a_lease_is_judged_by_the_clock_of_the_file_system(far: Callable[[float], Path]) -> None:
    path = far(200)
    holder = holder_of(Path("."))
    assert holder is not None and holder.host == "far"
    with pytest.raises(UserError, match="by process 1 on far"):
        RunLock.take(Path("."))
    assert path.exists()
    far(301)
    assert holder_of(Path(".")) is None
    lock = RunLock.take(Path("."))
    assert lock.path.name == ".lock-4" and not path.exists()
    assert lock.last_heartbeat == pytest.approx(time.time() - 1301, abs=5)
    lock.release()


def test_a_job_that_is_started_again_waits_for_no_lease(
    far: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    far(0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert holder_of(Path("."))  # another step of the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    RunLock.take(Path(".")).release()


def test_without_flock_a_process_of_this_machine_is_seen(far: Callable[[float], Path]) -> None:
    process = subprocess.Popen(["sleep", "60"])
    lock = RunLock.take(Path("."))
    content = json.loads(lock.path.read_text())
    assert not content["flock"]
    lock.path.write_text(json.dumps(content | {"pid": process.pid}))
    os.utime(lock.path)
    assert holder_of(Path("."))
    process.kill()
    process.wait()
    assert holder_of(Path(".")) is None


def test_a_process_that_has_just_begun_counts() -> None:
    """Between making its file and locking it; one that was killed there counts no longer after ten seconds."""
    Path(".lock-1").touch()
    with pytest.raises(UserError, match="by a process that has just started"):
        RunLock.take(Path("."))
    past = time.time() - 11
    os.utime(".lock-1", (past, past))
    RunLock.take(Path(".")).release()


def test_a_lock_that_was_taken_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine was asleep for long, and the run goes on elsewhere: that process must not be disturbed."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)
    run = RunFolder.create(Path("."), "a", "", 0, Path("run"))
    (lock,) = Path("run").glob(".lock-*")
    lock.unlink()
    lock.write_text("of another process")
    end = time.monotonic() + 10
    while not run.lost and time.monotonic() < end:
        time.sleep(0.01)
    assert run.lost
    with pytest.raises(StorageError), recorded(run, "fit", is_new=True):
        raise StorageError("taken")
    assert lock.read_text() == "of another process" and record(Path("run"))["status"] == "running"


def test_a_folder_that_can_only_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user: `list` says what is true, and does not fail."""
    run = RunFolder.create(Path("."), "a", "", 0, Path("run"))

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert RunFolder.open(Path("run")).status == "running"
    (path,) = Path("run").glob(".lock-*")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kernel": "far"}))
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert RunFolder.open(Path("run")).status == "running"
    os.utime(path, (0, 0))
    assert RunFolder.open(Path("run")).status == "interrupted"
    run.release()


def test_a_run_that_somebody_has_changed_is_left_alone() -> None:
    """Between the look at it and the lock: a training, or the record of a test."""
    run = RunFolder.create(Path("."), "a", "", 0, Path("run"))
    run.record.metrics = {"val/auc": float("nan")}
    run.finish("finished")
    early = RunFolder.open(Path("run"))
    other = RunFolder.open(Path("run"))
    with other.held():
        other.record.metrics = {"test/acc": 0.9}
        other.save()
    with pytest.raises(UserError, match="has just changed run"):
        early.hold()
    RunFolder.open(Path("run")).go_on("")  # the lock is free


def test_a_run_begun_by_a_faster_process() -> None:
    first = RunFolder.create(Path("."), "a", "", 0, Path("run"))
    first.finish("finished")
    with pytest.raises(UserError, match="another process has started a run in run; repeat the command"):
        RunFolder.create(Path("."), "a", "", 0, Path("run"))
    assert record(Path("run"))["status"] == "finished" and not list(Path("run").glob(".lock*"))


@pytest.mark.parametrize("refused", ["mkdir", "open"])
def test_what_was_made_for_a_run_without_room_goes(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses the run folder itself, or the lock in it."""
    real = os.mkdir if refused == "mkdir" else os.open

    def full(path: Any, *args: Any, **kwargs: Any) -> Any:
        place = Path(str(path))
        if place.parent.is_dir() and (place.name == "run" or place.name.startswith(".lock")):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *args, **kwargs)

    Path("mine").mkdir()
    monkeypatch.setattr(os, refused, full)
    with pytest.raises(StorageError, match=r"No space left|the disk is full"):
        RunFolder.create(Path("mine/new"), "a", "", 0, Path("mine/new/a/run"))
    assert list(Path(".").iterdir()) == [Path("mine")] and not list(Path("mine").iterdir())


def test_the_first_error_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be removed can't be, either."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patch, pytest.raises(UserError, match="a mistake"):
        patch.setattr(Path, "unlink", refuse)
        with recorded(_run(Path("run")), "fit", is_new=True):
            raise UserError("a mistake")
    assert RunFolder.open(Path("run")).status == "failed"

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no room"):
        patch.setattr(Path, "unlink", refuse)
        patch.setattr(RunFolder, "save", lambda _: (_ for _ in ()).throw(RuntimeError("no room")))
        RunFolder.create(Path("."), "a", "", 0, Path("other"), config="seed_everything: 0")
    RunLock.take(Path("other")).release()  # nobody holds it


@pytest.mark.parametrize("kept", ["checkpoints/last.ckpt", "wandb/run/model.ckpt", "notes.txt", "figures/mine.png"])
def test_what_is_worth_keeping_stays(kept: str) -> None:
    with pytest.raises(UserError) as caught, recorded(_run(Path("run")), "fit", is_new=True):
        Path("run", kept).parent.mkdir(parents=True, exist_ok=True)
        Path("run", kept).write_text("work")
        Path("run/config.yaml").touch()
        raise UserError("a mistake")
    assert Path("run", kept).read_text() == "work"
    assert record(Path("run"))["status"] == "failed" and record(Path("run"))["error"] == "a mistake"
    assert "fit(resume='run')" in caught.value.__notes__[-1]


def _run(folder: Path | None = None) -> RunFolder:
    """A new run with all that one has before its first checkpoint."""
    run = RunFolder.create(Path("new/runs"), "a", "", 0, folder)
    for name in ("config.yaml", "metrics.csv", "figures/examples.png", "figures/lr_finder.png"):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).touch()
    for name in ("events.out.tfevents.1", "wandb/run/x/log.txt"):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).touch()
    (run.folder / "wandb" / "latest").symlink_to("run")
    (run.folder / "checkpoints").mkdir()
    (run.folder / f"checkpoints/last.ckpt.tmp-{os.getpid()}-0a1b2c3d").touch()
    return run


def test_a_mistake_before_the_first_checkpoint_leaves_nothing() -> None:
    with pytest.raises(UserError) as caught, recorded(_run(), "fit", is_new=True):
        raise UserError("a mistake")
    assert not list(Path(".").iterdir()) and not hasattr(caught.value, "__notes__")


def test_a_folder_of_the_user_stays() -> None:
    Path("mine").mkdir()
    with pytest.raises(UserError), recorded(_run(Path("mine")), "fit", is_new=True):
        raise UserError("a mistake")
    assert list(Path(".").iterdir()) == [Path("mine")] and not list(Path("mine").iterdir())


def test_a_run_without_room_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first error is seen, also where its record can't be written, either."""
    with pytest.raises(StorageError, match="for last") as caught, recorded(_run(), "fit", is_new=True):
        raise StorageError("no room for last.ckpt")
    (folder,) = Path("new/runs/a").iterdir()
    assert record(folder)["status"] == "interrupted" and record(folder)["error"] == "no room for last.ckpt"
    assert f"start over with: `fit(resume={str(folder)!r})`" in caught.value.__notes__[-1]
    (folder / "checkpoints" / "best.ckpt").touch()
    assert how_to_go_on(RunFolder.open(folder), "fit").startswith(f"only best.ckpt was saved in {folder}; start over")
    run = RunFolder.open(folder)
    run.go_on("")

    def full(_: RunFolder) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", full)
        with pytest.raises(StorageError, match="for best"), recorded(run, "fit", is_new=False):
            raise StorageError("no room for best.ckpt")
    assert record(folder)["status"] == "running" and RunFolder.open(folder).status == "interrupted"
    RunFolder.open(folder).go_on("")


def test_a_lock_is_let_go_by_every_end() -> None:
    for error in (KeyboardInterrupt(), RuntimeError("a bug"), UserError("a mistake"), SystemExit(3)):
        run = _run(Path("run"))
        Path("run/notes.txt").touch()
        with contextlib.suppress(BaseException), recorded(run, "fit", is_new=True):
            raise error
        assert not list(Path("run").glob(".lock*"))
        shutil.rmtree("run")


def test_a_fold_goes_on_and_a_failed_one_stays() -> None:
    job = FoldJob(Path("walk/folds/2018-12"), Path("train.yaml"), Fold(*["2018-12"] * 4), 1)  # type: ignore[arg-type]
    new = job.run_folder()
    assert new.parent == job.folder and not new.exists()
    folds = Path("walk/folds")
    write_run(folds, "2018-12/20260101-100000-aaaa", {}, status="failed", start="2026-01-01T10:00:00+00:00")
    assert not job.run_folder().exists()
    begun = write_run(
        folds, "2018-12/20260101-110000-bbbb", {}, status="interrupted", start="2026-01-01T11:00:00+00:00"
    )
    write_run(folds, "2018-12/20260101-120000-cccc", {}, status="failed", start="2026-01-01T12:00:00+00:00")
    assert job.run_folder() == begun and job.finished() is None


def test_a_number_that_is_none_keeps_the_checkpoints_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bad.py").write_text(
        "import pytorch_lightning as pl, torch\n"
        "class Bad(pl.Callback):\n"
        "    def on_train_batch_start(self, trainer, module, batch, batch_idx):\n"
        "        if trainer.global_step == 15:\n"
        "            torch.nn.init.constant_(module.network.head.bias, float('nan'))\n"
    )
    monkeypatch.syspath_prepend(".")
    words = [*TINY, "--data.batch_size", "32", "--checkpoint.every_n_steps", "5", "--trainer.callbacks+=bad.Bad"]
    assert main([*words, "--trainer.max_epochs", "1", "--wandb", "disabled"]) == 2
    folder = only_run()
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert record(folder)["status"] == "failed" and record(folder)["epochs"] == 0
    error = capsys.readouterr().err
    assert error.startswith("error: the training loss is NaN or infinite at step 16") and error.count("\n") == 1
    assert error.endswith(
        f"resume from the last checkpoint in {folder} with: lightning-cnn fit --resume {folder.name}\n"
    )


@pytest.mark.ci
def test_ctrl_c_says_how_to_go_on() -> None:
    """The command is one that can be typed as it stands, and works."""
    place = Path("my runs").absolute()
    words = [*FEATURES, "--runs_dir", str(place), "--experiment", "stopped"]
    variables = {"LIGHTNING_CNN_RUNS": "elsewhere"}
    outcome = train(words, signum=signal.SIGINT, after=place / "stopped", environment=variables)
    assert outcome.codes == [130], outcome.output
    (folder,) = place.glob("*/*")
    stopped, advice = outcome.output.splitlines()[-2:]
    assert stopped == "stopped by SIGINT"
    assert advice.endswith(f"lightning-cnn fit --resume '{folder}'")
    assert train(["fit", "--resume", str(folder)]).codes == [0]


def test_an_interrupted_test_gets_no_advice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(verb: str, argv: list[str]) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    monkeypatch.setattr("lightning_cnn.cli.evaluate.main", stopped)
    assert main(["test"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_refused_job_removes_its_own_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that run write their logs into folders beside its own."""
    tools = tmp_path / "tools"
    tools.mkdir()
    refuses = "mkdir logs/other\necho 'sbatch: error: no' >&2\nexit 1\n"
    for name, text in {"sbatch": refuses, "srun": ""}.items():
        (tools / name).write_text("#!/bin/sh\n" + text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="Slurm refuses the job: no"):
        submit(Slurm(), Path("logs/mine"), "x", [partial(print)], {"x.yaml": ""})
    assert [path.name for path in Path("logs").iterdir()] == ["other"]
