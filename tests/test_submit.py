"""`submit`, and what happens to its jobs on a real Slurm: two machines, preemption, the time limit."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from slurm_cluster import Cluster, slurm_cluster, until

from lightning_cnn.cli import main

PROJECT = Path(__file__).parents[1]
# all that draws or remembers: order, dropout, augmentation, gathered gradients, averaged weights, a schedule
TRAINING = [
    *["--data", "Digits", "--data.batch_size", "64", "--model.architecture", "ffnn", "--trainer.accelerator", "cpu"],
    *["--data.augment.shift", "0.1", "--data.augment.mixup", "0.2", "--trainer.accumulate_grad_batches", "2"],
    *["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.9", "--model.schedule", "cosine"],
    *["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "2", "--trainer.enable_model_summary", "false"],
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm_cluster() as found:
        yield found


@pytest.fixture
def on_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The tools of Slurm, and jobs that find the package, this folder and the same Python."""
    for name, value in (cluster.environment | {"PYTHON": sys.executable}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]))
    return cluster


def hold(*batches: int) -> list[str]:
    Path("held").mkdir(exist_ok=True)
    held = ["--trainer.callbacks+=holding.Hold", "--trainer.callbacks.batches", str([*batches])]
    return [*held, "--trainer.callbacks.folder", str(Path("held").absolute())]


def held(start: int, processes: int) -> Callable[[], bool]:
    return lambda: all(Path(f"held/{start}-{rank}").exists() for rank in range(processes))


def same_weights(one: Path, other: Path) -> bool:
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (one, other)
    )
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metrics(folder: Path) -> list[list[str]]:
    """The rows of metrics.csv without those that measure time."""
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    kept = [column for column, name in enumerate(header) if not any(word in name for word in ("per_s", "memory"))]
    return [[row[column] for column in kept] for row in [header, *rows]]


def the_job(out: str) -> tuple[str, Path]:
    """Number and run folder of a job, from what `submit` prints."""
    words = out.splitlines()[0].split()
    return words[1], Path(words[-1])


def test_two_machines_and_a_preemption_give_the_weights_of_an_unbroken_run(
    on_cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unbroken run is that of the hand-written script."""
    script = str(PROJECT / "experiments/slurm/train.sbatch")
    fewer = ["--ntasks-per-node=1", "--cpus-per-task=1", "--time=10"]
    whole = on_cluster("sbatch", "--parsable", *fewer, script, *TRAINING, "--wandb", "disabled")
    words = ["submit", "--nodes", "2", "--tasks_per_node", "1", "--time", "10", *TRAINING, "--wandb", "offline"]
    assert main([*words, *hold(11)]) == 0
    job, folder = the_job(capsys.readouterr().out)
    until(held(0, 2), 240, "the job trains")
    urgent = on_cluster("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=true")
    on_cluster.wait(urgent)
    on_cluster.wait(job, seconds=300)
    on_cluster.wait(whole)
    unbroken = Path(f"runs/slurm/tests-{whole}")
    assert on_cluster.restarts(job) == 1 and on_cluster.restarts(whole) == 0
    assert same_weights(folder, unbroken) and metrics(folder) == metrics(unbroken)
    log = Path(f"runs/digits_ffnn/slurm/{job}_0_log.out").read_text()
    assert f"job {job} is queued again and will go on in {folder.absolute()}" in log
    assert [line for line in log.splitlines() if line.startswith("run folder ")] == [
        f"run folder   {folder.absolute()}"
    ]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["epochs"] == 2 and "test/acc" in record["metrics"]
    assert [path.name[-len(folder.name) :] for path in folder.glob("wandb/offline-run-*")] == [folder.name] * 2
    assert [path.name for path in folder.parent.iterdir()] == sorted([folder.name, "slurm"])
