"""The long form of the tests of lost trials: sweeps that are stopped and killed at random moments, again and again."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_sweep_losses import HOME, RESUME, TINY, check_equal
from trainings import train

from lightning_cnn.cli import main
from lightning_cnn.engine.sweep.study import Study

TRIALS = 3


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that nothing has come in the way of; not to be changed."""
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    assert main([*TINY, "--trials", str(TRIALS), "--runs_dir", str(runs)]) == 0
    return runs / HOME.name


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("moments", "signals", "blows"),
    [(25, [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], 8), (10, [signal.SIGKILL], 2)],
    ids=["stopped", "killed"],
)
def test_one_process(undisturbed: Path, moments: int, signals: list[signal.Signals], blows: int) -> None:
    """Args: how many signals must have found a sweep, which ones, and how many come to each sweep at most."""
    draw = random.Random(3)
    words = [*TINY, "--trials", str(TRIALS)]
    whole = train([*words, "--experiment", "whole"])
    assert whole.codes == [0], whole.output
    struck = sweeps = 0
    while struck < moments:
        name = f"{HOME.name}_{sweeps}"
        sweeps += 1
        for _ in range(blows):
            signum = draw.choice(signals)
            ended = train([*words, "--experiment", name], 1, signum, draw.uniform(0, whole.seconds))
            assert not ended.hung and "Traceback" not in ended.output, ended.output
            if not ended.was_struck or ended.codes == [0]:  # it was faster
                break
            assert ended.codes == [-signum if signum == signal.SIGKILL else 128 + signum], ended.output
            struck += 1
        again = train([*words, "--experiment", name])
        assert again.codes == [0], again.output
        check_equal(Path("runs") / name, undisturbed)
        print(f"{struck} of {moments} blows, {sweeps} sweeps equal", flush=True)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_two_jobs(undisturbed: Path) -> None:
    """One of the two, or what started them, is stopped or killed, while it imports too; no process stays behind."""
    draw = random.Random(4)
    words = [sys.executable, "-m", "lightning_cnn", *TINY, "--trials", str(TRIALS), "--jobs", "2"]
    began = time.monotonic()
    assert subprocess.run([*words, "--experiment", "whole"], capture_output=True).returncode == 0
    seconds = time.monotonic() - began
    for moment in range(8):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(draw.uniform(0.2, 1) * seconds)
        workers: list[psutil.Process] = []
        jobs: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = psutil.Process(process.pid).children(recursive=True)
            jobs = [each for each in workers if "spawn_main" in " ".join(each.cmdline())]
        victim = draw.choice(["parent", "worker"]) if moment < 6 else "parent"
        signum = signal.SIGTERM if moment < 6 else signal.SIGKILL
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            (draw.choice(jobs) if victim == "worker" and jobs else process).send_signal(signum)
        out, _ = process.communicate(timeout=300)
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, out
        assert process.returncode in (0, 2, 143, -signum), out
        print(
            f"{moment + 1} of 8: {signum.name} to a {victim} of {len(jobs)} jobs, code {process.returncode}", flush=True
        )
        if (HOME / "sweep").is_dir() and not Study(HOME).left():
            check_equal(HOME, undisturbed)
            HOME.rename(HOME.with_name(f"checked_{moment}"))
    if (HOME / "sweep").is_dir():
        assert main(RESUME) == 0
        check_equal(HOME, undisturbed)
