"""A sweep as an array of jobs on a real Slurm, and what it refuses."""

import os
import sys
from pathlib import Path

import pytest
from run_folders import record
from slurm_cluster import slurm_cluster, until

from lightning_cnn.cli import main

PROJECT = Path(__file__).parents[2]
TINY = ["--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1", "--wandb", "disabled"]
SEARCH = ["--search", "model.lr=log(1e-4,1e-1)", "--launcher", "slurm"]


def printed() -> list[str]:
    """What the jobs have printed so far."""
    return [path.read_text() for path in Path("runs").glob("*/slurm/*/*_log.out")]


@pytest.mark.slow
def test_the_jobs_of_an_array_share_the_trials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with slurm_cluster() as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]))
        assert main(["sweep", *TINY, *SEARCH, "--trials", "12", "--jobs", "2", "--time", "10"]) == 0
        out = capsys.readouterr().out
        first = out.splitlines()[1].split()[-2]
        assert first.endswith("_0") and f"scancel {first.removesuffix('_0')}" in out
        until(lambda: sum("\ntrial " in log for log in printed()) == 2, 200, "both have trained")
        cluster("scancel", "--signal=USR2", first)  # as before the end of its time
        for number in (0, 1):
            cluster.wait(f"{first.removesuffix('_0')}_{number}", seconds=300)
        assert cluster.restarts(first) == 1
    home, logs = Path("runs/digits_linear_sweep"), printed()
    lines = sorted(line.split()[1] for log in logs for line in log.splitlines() if line.startswith("trial "))
    assert lines == sorted(map(str, range(1, 13)))  # none lost, none twice
    assert len(logs) == 2
    assert sum(log.count("is queued again and will continue in") for log in logs) == 1
    runs = [record(path.parent) for path in home.glob("*/run.json")]
    assert (
        len(runs) == 12 and {run["status"] for run in runs} == {"finished"} and len({run["job"] for run in runs}) == 2
    )
    assert (home / "best.yaml").is_file() and (home / "history.png").is_file()


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["--jobs", "2"], "Slurm is not installed here (sbatch not found)"),
        (["--jobs", "2", "--nodes", "2"], "--jobs trains several trials in parallel"),
        (["--jobs", "2", "--gpus_per_node", "8"], "--jobs trains several trials in parallel"),
        (["--time", "soon"], "argument --time"),
    ],
)
def test_what_slurm_can_not_do(
    words: list[str], telling: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert main(["sweep", *TINY, *SEARCH, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert telling in line and not Path("runs").exists()


def test_a_dry_run_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = ["--jobs", "4", "--partition", "gpu", "--gpus_per_node", "1", "--dry_run"]
    assert main(["sweep", *TINY, *SEARCH, *jobs]) == 0
    out = capsys.readouterr().out
    assert out.startswith("#!/bin/bash") and not Path("runs").exists()
    for line in ("--array=0-3", "--partition=gpu", "--gpus-per-node=1", "--job-name=digits_linear_sweep", "--requeue"):
        assert f"#SBATCH {line}" in out
