"""Folds of a walk-forward that are stopped at any moment, or starve, go on where they were."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from disturbing import Once, full, stop
from run_folders import learned, only_run, record, same

from lightning_cnn.cli import main
from lightning_cnn.config.config import Config
from lightning_cnn.datamodules.returns.price_file import prices_kept
from lightning_cnn.engine import fit, walkforward
from lightning_cnn.engine.finite_loss import FiniteLoss
from lightning_cnn.engine.walkforward import fold as walkforward_fold
from lightning_cnn.errors import KilledError
from lightning_cnn.tracking.run import RunFolder

WALK = [
    *["walkforward", "--data", "SyntheticReturns", "--data.stocks", "10", "--data.months", "75", "--data.lags", "6"],
    *["--data.val_months", "6", "--trainer.max_epochs", "2", "--train_months", "48", "--wandb", "disabled"],
    *["--data.batch_size", "100"],
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A walk-forward of two folds that nothing has come in the way of; not to be changed."""
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    assert main([*WALK, "--runs_dir", str(runs)]) == 0
    (folder,) = runs.glob("*/*")
    return folder


def check_equal(folder: Path, other: Path) -> None:
    """Each fold is there once, and all ends as in another walk-forward, bit for bit."""
    for name in ("predictions.parquet", "baselines.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(folder / name), pd.read_parquet(other / name), check_exact=True)
    assert record(folder)["status"] == "finished" and record(folder)["metrics"] == record(other)["metrics"]
    folds = [sorted(path.parent for path in each.glob("folds/*/*/run.json")) for each in (folder, other)]
    assert [path.parent.name for path in folds[0]] == [path.parent.name for path in folds[1]] and len(folds[0]) > 1
    for one, two in zip(*folds, strict=True):
        assert same(learned(one, "last.ckpt"), learned(two, "last.ckpt"))


@pytest.mark.slow
def test_told_to_stop_at_any_moment_of_its_life(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moments: list[tuple[Any, str, int]] = [
        (fit, "Experiment", 2),
        (FiniteLoss, "on_train_batch_start", 6),
        (walkforward_fold, "predict_test", 1),
        (FiniteLoss, "on_train_batch_start", 3),
        (walkforward, "_record_fold", 1),
    ]
    words = WALK
    for owner, name, call in moments:
        code, words, said = disturbed(words, owner, name, Once(stop, call), monkeypatch, capsys)
        assert code == 143 and "Traceback" not in said, (name, said)
    assert main(words) == 0
    check_equal(only_run(), undisturbed)


def test_a_fold_without_room_on_the_disk_goes_on(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = WALK
    for owner, name, call in (
        (torch, "save", 3),
        (RunFolder, "write_config", 2),
        (walkforward_fold, "predict_test", 1),
    ):
        code, words, said = disturbed(words, owner, name, Once(full, call), monkeypatch, capsys)
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert code == 2 and "disk is full" in line and "fold 20" in line and "walkforward --resume" in line
    assert main(words) == 0
    check_equal(only_run(), undisturbed)


@pytest.mark.ci
def test_two_processes_that_are_stopped_make_the_same_folds_and_nothing_is_trained_again(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words, _ = disturbed([*WALK, "--jobs", "2"], walkforward, "_record_fold", Once(stop), monkeypatch, capsys)
    assert code == 143
    folder = only_run()
    runs = [RunFolder.open(path.parent) for path in sorted(folder.glob("folds/*/*/run.json"))]
    assert [run.status for run in runs].count("interrupted") <= 1  # one was done, and the other may have been
    trained = []
    real = fit.train

    def counted(config: Config, folder: Path) -> RunFolder | None:
        trained.append(config["experiment"])
        return real(config, folder=folder)

    monkeypatch.setattr(fit, "train", counted)
    assert main([*words, "--jobs", "1"]) == 0
    assert len(trained) == 2 - sum(run.status == "finished" for run in runs)
    check_equal(folder, undisturbed)
    assert capsys.readouterr().out.count("finished before") == 2 - len(trained)

    trained.clear()
    written = {path: path.stat().st_mtime_ns for path in folder.glob("folds/*/*/checkpoints/*")}
    (runs[1].folder / "predictions.parquet").unlink()  # as if it had been killed before its end
    assert main(words) == 0
    assert trained == [runs[1].folder.parent.name]
    assert written == {path: path.stat().st_mtime_ns for path in folder.glob("folds/*/*/checkpoints/*")}
    check_equal(folder, undisturbed)


def disturbed(
    words: list[str],
    owner: Any,
    name: str,
    once: Once,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, list[str], str]:
    """Starts it, and disturbs one call of a function; the exit code, the words that go on with it, and what it said."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, once.before(getattr(owner, name)))
        code = main(words)
    folder = only_run()
    assert once.left <= 0 and record(folder)["status"] == "interrupted"
    return code, ["walkforward", "--resume", folder.name], "".join(capsys.readouterr())


def test_processes_that_are_killed_leave_it_interrupted(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_left(*given: Any) -> Any:
        assert given[-1] is prices_kept  # each process reads its prices once
        raise KilledError("a process was killed, perhaps for want of memory")
        yield

    monkeypatch.setattr(walkforward, "each", none_left)
    assert main([*WALK, "--jobs", "2"]) == 2
    folder = only_run()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"lightning-cnn walkforward --resume {folder.name}" in error
    assert "was killed, perhaps for want of memory" in error and record(folder)["status"] == "interrupted"
    shutil.copytree(undisturbed / "folds", folder / "folds", dirs_exist_ok=True)
    assert main(["walkforward", "--resume", folder.name]) == 0
    check_equal(folder, undisturbed)
