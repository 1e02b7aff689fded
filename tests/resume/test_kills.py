"""Trainings that are killed or told to stop at random moments, again and again, end as if they had never been."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch
from disturbing import Once, stop
from pytorch_lightning import Callback, LightningModule, Trainer
from run_folders import learned, logged, pictures, record, same
from test_resumption import FEATURES
from trainings import LIMIT, train

from lightning_cnn.cli import main
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking.run import RunFolder

pytestmark = pytest.mark.first
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
BLOWS = 3  # to a run at most


def check_files(folder: Path) -> None:
    """Nothing that a stopped run has left may be a half."""
    if not (folder / "run.json").is_file():  # killed when it had just made the folder
        assert not list(folder.glob("**/*.ckpt"))
        return
    assert json.loads((folder / "run.json").read_text())["id"] == folder.name
    for path in folder.glob("checkpoints/*.ckpt"):
        assert torch.load(path, weights_only=True)["state_dict"]
    assert pictures(folder) is not None  # each can be read


def break_off(moments: int, ranks: int, signum: signal.Signals, seed: int, words: Sequence[str] = FEATURES) -> None:
    """Compares an unbroken run with runs that are broken off at so many random moments.

    Args:
        moments: How many signals must have found a training.
        ranks: Number of processes.
        signum: The signal. SIGKILL goes to all processes, another to one or to all of them.
        seed: Seed of the moments.
        words: The command line.
    """
    draw = random.Random(seed)
    words = [*words, *(TWO if ranks == 2 else [])]
    whole = Path("runs/whole").absolute()
    unbroken = train(words, ranks, environment={RUN_FOLDER: str(whole)})
    assert unbroken.codes == [0] * ranks, unbroken.output
    struck = runs = within = 0
    while struck < moments:
        folder = Path(f"runs/broken_{runs}").absolute()
        runs += 1
        for _ in range(BLOWS):
            to = [draw.randrange(ranks)] if signum != signal.SIGKILL and draw.random() < 1 / 3 else range(ranks)
            after = draw.uniform(0, unbroken.seconds)
            outcome = train(words, ranks, signum, after, to, {RUN_FOLDER: str(folder)})
            assert not outcome.hung, outcome.output
            check_files(folder)
            if not outcome.was_struck or outcome.codes == [0] * ranks:  # it was faster
                break
            if signum == signal.SIGKILL:
                assert {*outcome.codes} <= {-signum, 0}, outcome.output  # one may have been at its end
            else:
                assert outcome.codes == [128 + signum] * ranks, outcome.output
                assert "Traceback" not in outcome.output, outcome.output
                assert not folder.exists() or record(folder)["status"] == "interrupted"
            struck += 1
            within += (folder / "checkpoints" / "last.ckpt").is_file()
        if runs % 2 and (folder / "run.json").is_file() and record(folder)["status"] != "finished":
            outcome = train([words[0], "--resume", str(folder)], ranks)
        else:  # the same command once more
            outcome = train(words, ranks, environment={RUN_FOLDER: str(folder)})
        assert outcome.codes == [0] * ranks, outcome.output
        assert record(folder)["status"] == "finished"
        for name in ("last.ckpt", "best.ckpt"):
            assert same(learned(folder, name), learned(whole, name)), (folder, name)
        assert logged(folder) == logged(whole)
        assert same(pictures(folder), pictures(whole)), folder
        assert list(folder.rglob("*.tmp-*")) == []
        print(
            f"{struck} of {moments} blows, {within} of them after the first checkpoint, {runs} runs equal", flush=True
        )


def test_kill_9() -> None:
    """With the test; what its figures show `test_resumed_figures` and the long form compare."""
    break_off(3, 1, signal.SIGKILL, seed=1, words=["train", *FEATURES[1:]])


@pytest.mark.ci
@pytest.mark.figures
def test_sigterm_on_two_processes() -> None:
    break_off(2, 2, signal.SIGTERM, seed=1)


class PressesTwice(Callback):
    """Presses Ctrl-C twice within a batch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        Path("went_on").touch()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)


def test_a_second_ctrl_c_ends_at_once() -> None:
    outcome = train([*FEATURES, "--trainer.callbacks+=test_kills.PressesTwice"])
    assert Path("went_on").exists()  # the first is heeded between two batches
    assert outcome.codes == [130] and "stopped at once" in outcome.output and outcome.seconds < 60


@pytest.mark.ci
@pytest.mark.parametrize(("module", "signum"), [("torch", signal.SIGTERM), ("timm", signal.SIGUSR1)])
def test_a_signal_during_the_imports(module: str, signum: signal.Signals) -> None:
    code = f"""
import os, sys
from lightning_cnn.cli import main
class Importing:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(signum)})
sys.meta_path.insert(0, Importing)
sys.exit(main({FEATURES}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + signum
    assert done.stderr == f"stopped by {signum.name}\nnothing has been kept or changed\n"
    assert not Path("runs").exists()


def test_a_signal_while_the_run_folder_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run says that it was stopped."""
    monkeypatch.setattr(RunFolder, "write_config", Once(stop).before(RunFolder.write_config))
    assert main(FEATURES) == 128 + signal.SIGTERM
    (folder,) = (path.parent for path in Path("runs").glob("*/*/run.json"))
    assert record(folder)["status"] == "interrupted" and record(folder)["end"]


def _group(number: int) -> list[list[str]]:
    """The command lines of the processes of a group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == number:
                found.append(process.cmdline())
    return found


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_signals_while_two_processes_start() -> None:
    """Through Lightning's launcher, with all imports, to the whole group as a terminal does; nobody stays behind."""
    words = [sys.executable, "-m", "lightning_cnn", *FEATURES, *TWO]
    began = time.monotonic()
    assert subprocess.run([*words, "--trainer.max_epochs", "1"], capture_output=True).returncode == 0
    seconds, draw = time.monotonic() - began, random.Random(1)
    for number in range(10):
        signum = draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
        folder = Path(f"runs/started_{number}").absolute()
        process = subprocess.Popen(words, env=os.environ | {RUN_FOLDER: str(folder)}, start_new_session=True)
        time.sleep(draw.uniform(0, 0.7 * seconds))
        os.killpg(process.pid, signum)
        # before Python has begun to listen the signal ends it in the system's way, or in Python's
        assert process.wait(LIMIT) in (128 + signum, -signum, 1)
        behind: list[list[str]] = []
        for _ in range(100):
            if not (behind := _group(process.pid)):
                break
            time.sleep(0.1)
        assert not behind, (number, signum, behind)
        check_files(folder)
        assert not (folder / "run.json").is_file() or record(folder)["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.figures
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("moments", "ranks", "signum"),
    [
        (60, 1, signal.SIGKILL),
        (30, 2, signal.SIGTERM),
        (10, 1, signal.SIGTERM),
        (10, 2, signal.SIGKILL),
        (10, 2, signal.SIGINT),
    ],
)
def test_many_moments(moments: int, ranks: int, signum: signal.Signals) -> None:
    """The long form."""
    break_off(moments, ranks, signum, seed=2, words=["train", *FEATURES[1:]])
