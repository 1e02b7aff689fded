"""Trials of a sweep that are stopped at any moment, or starve, are lost never and trained twice never."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from disturbing import Once, full, full_below, starve, stop
from run_folders import learned, record, same

from lightning_cnn.cli import main
from lightning_cnn.datamodules import Digits
from lightning_cnn.engine import fit
from lightning_cnn.engine.finite_loss import FiniteLoss
from lightning_cnn.engine.sweep import jobs as sweep_jobs
from lightning_cnn.engine.sweep.journal import Journal
from lightning_cnn.engine.sweep.study import NUMBER, Study
from lightning_cnn.resume.last_checkpoint import LastCheckpoint
from lightning_cnn.tracking.run import RunFolder

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
    assert study.left() == 0 and all(trial.state.is_finished() for trial in study.trials)
    return [
        (trial.user_attrs[NUMBER], trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in study.trials
    ]


def check_equal(home: Path, other: Path) -> None:
    """Every trial is there once and ends as in another sweep, bit for bit, in the only folders of runs."""
    assert outcome(home) == outcome(other)
    named = {"runs_dir": None, "experiment": None}
    best = [yaml.safe_load((each / "best.yaml").read_text()) | named for each in (home, other)]
    assert best[0] == best[1]
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


MOMENTS: list[tuple[Any, str]] = [
    (Study, "__init__"),
    (Study, "_take_up"),
    (fit, "Experiment"),
    (Digits, "setup"),
    (RunFolder, "write_config"),
    (LastCheckpoint, "on_train_batch_start"),
    (Study, "report"),
    (Study, "tell"),
    (Study, "write_best"),
]


def test_told_to_stop_at_any_moment_of_its_life(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More often than a trial may die, and where it is about to be imported, prepared, trained, or recorded."""
    for owner, name in MOMENTS:
        strike = Once(stop)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, strike.before(getattr(owner, name)))
            code = main([*TINY, "--trials", "2"])
        assert strike.left <= 0 and code == 143, name
        assert "Traceback" not in (said := capsys.readouterr()).out + said.err
        assert f"resume with: lightning-cnn {' '.join(RESUME)}\n" in said.err
        for run in HOME.glob("*/run.json"):
            assert record(run.parent)["status"] in ("interrupted", "finished")
    assert main(RESUME) == 0
    check_equal(HOME, undisturbed)


def test_without_room_on_the_disk_a_trial_goes_back(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More often than a trial may die, and also where the journal can't take that up either."""
    for owner, name, call, what in (
        (torch, "save", 1, full_below),
        (torch, "save", 3, full),
        (RunFolder, "write_config", 1, full),
        (FiniteLoss, "on_train_batch_start", 2, full_below),
        (sweep_jobs, "printing_to", 1, full_below),
        (Study, "write_best", 1, full),
    ):
        disk = Once(what, call)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, disk.before(getattr(owner, name)))
            if call == 3:  # from now on nothing can be written
                patch.setattr(Journal, "append_logs", Once(full).before(Journal.append_logs))
            code = main([*TINY, "--trials", "2"])
        said = capsys.readouterr()
        assert disk.left <= 0 and code == 2, (name, said)
        (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert "disk is full" in line and f"lightning-cnn sweep --resume {HOME.name}" in line, (name, line)
        assert "Traceback" not in said.out + said.err
    assert main(RESUME) == 0
    check_equal(HOME, undisturbed)


def test_without_memory_a_trial_is_tried_three_times(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes after the others, and goes on where it was."""
    memory = Once(starve, 6)
    with monkeypatch.context() as patch:
        patch.setattr(FiniteLoss, "on_train_batch_start", memory.before(FiniteLoss.on_train_batch_start))
        assert main([*TINY, "--trials", "2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    assert [line.split()[1] for line in lines] == ["1", "2", "1"] and "allocate memory" in lines[0]
    check_equal(HOME, undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr(Study, "fields", lambda *_: starve())
        assert main([*TINY, "--trials", "1", "--experiment", "none"]) == 2
    assert "can't allocate memory" in (line := capsys.readouterr().err) and "(3 of 3 times)" in line


def test_a_trial_that_ends_the_process_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Study, "fields", Once(lambda: sys.exit(7)).before(Study.fields))
        assert main([*TINY, "--trials", "2", "--trainer.max_epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "it ended the process with code 7" in out and "1 finished, 1 failed" in out


def test_the_same_command_again_goes_on_and_other_settings_are_refused(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strike = Once(stop, 6)
    with monkeypatch.context() as patch:
        patch.setattr(FiniteLoss, "on_train_batch_start", strike.before(FiniteLoss.on_train_batch_start))
        assert main([*TINY, "--trials", "2"]) == 143
    (folder,) = (path.parent for path in HOME.glob("*/run.json"))
    kept = {path: path.read_bytes() for path in HOME.rglob("*") if path.is_file()}
    assert folder / "checkpoints" / "last.ckpt" in kept
    capsys.readouterr()
    assert main([*TINY, "--trials", "2", "--model.optimizer", "sgd"]) == 2
    line = capsys.readouterr().err
    assert f"sweep --resume {HOME.name}" in line and "--experiment NAME" in line and "--model.optimizer sgd" in line
    assert {path: path.read_bytes() for path in HOME.rglob("*") if path.is_file()} == kept
    assert main([*TINY, "--trials", "2"]) == 0
    assert f"resuming the sweep in {HOME}" in capsys.readouterr().out
    check_equal(HOME, undisturbed)
    (HOME / "best.yaml").unlink()  # as if it had been stopped just before
    assert main([*TINY, "--trials", "2"]) == 0
    check_equal(HOME, undisturbed)
