"""Trials of a sweep that are stopped at any moment, or starve, are lost never and trained twice never."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback
from run_folders import learned, record, same

from lightning_cnn.cli import main
from lightning_cnn.commands import sweep, sweep_jobs, train
from lightning_cnn.datamodules import Digits
from lightning_cnn.sweeps.journal import Journal
from lightning_cnn.sweeps.study import NUMBER, Study
from lightning_cnn.tracking.checkpoint import AtomicCheckpointIO
from lightning_cnn.tracking.run import Run

TINY = [
    *["sweep", "--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "2"],
    *["--wandb", "disabled", "--search", "model.lr=log(1e-4,1e-1)", "--sampler", "random", "--prune", "true"],
    *["--trainer.limit_train_batches", "4", "--trainer.limit_val_batches", "1"],
]
HOME = Path("runs/digits_linear_sweep")
RESUME = ["sweep", "--resume", HOME.name]


def outcome(home: Path) -> list[tuple[Any, ...]]:
    """What a finished sweep has found, by the number of the trial."""
    study = Study(home)
    assert study.left() == 0 and study.at_work() == []
    return [
        (trial.user_attrs[NUMBER], trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in study.trials
    ]


def check_equal(home: Path, other: Path) -> None:
    """Every trial is there once and ends as in another sweep, bit for bit, in the only folders of runs."""
    assert outcome(home) == outcome(other)
    assert (home / "best.yaml").read_text().splitlines()[1:] == (other / "best.yaml").read_text().splitlines()[1:]
    folders = [[study.run_folder(trial) for trial in study.trials] for study in map(Study, (home, other))]
    assert {path.parent for path in home.glob("*/run.json")} == {*folders[0]}
    for one, two in zip(*folders, strict=True):
        assert record(one)["status"] == record(two)["status"]
        assert same(learned(one, "last.ckpt"), learned(two, "last.ckpt"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two trials that nothing has come in the way of; not to be changed."""
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    assert main([*TINY, "--trials", "2", "--runs_dir", str(runs)]) == 0
    return runs / HOME.name


class Once:
    """Does something to this process at the first call of a method."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.do = do
        self.was_called = False

    def before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method that does it first."""

        def changed(*args: Any, **kwargs: Any) -> Any:
            if not self.was_called:
                self.was_called = True
                self.do()
            return method(*args, **kwargs)

        return changed


def stop() -> None:
    """What Slurm, `kill` or the parent do."""
    os.kill(os.getpid(), signal.SIGTERM)


MOMENTS: list[tuple[Any, str]] = [
    (Study, "__init__"),
    (Study, "_draw"),
    (Study, "_take_up"),
    (Study, "words"),
    (train, "ExperimentCLI"),
    (Digits, "setup"),
    (Run, "write_config"),
    (Callback, "on_train_batch_start"),
    (Study, "report"),
    (Callback, "on_train_end"),
    (Study, "tell"),
    (Study, "_write_best"),
]


def test_told_to_stop_at_any_moment_of_its_life(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More often than a trial may die, and where it is about to be imported, prepared, trained, or recorded."""
    assert main([*TINY, "--trials", "2", "--trainer.max_epochs", "2", "--experiment", HOME.name]) == 0
    for owner, name in MOMENTS:
        strike = Once(stop)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, strike.before(getattr(owner, name)))
            code = main([*TINY, "--trials", "2"])
        assert strike.was_called and code == 143, name
        assert "Traceback" not in (said := capsys.readouterr()).out + said.err
    assert main(RESUME) == 0
    check_equal(HOME, undisturbed)
