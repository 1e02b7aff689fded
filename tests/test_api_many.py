"""The public functions that train many times."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_cnn as lc

DATA = {"class_path": "SyntheticReturns", "stocks": 40, "months": 75, "lags": 12, "val_months": 6}
FIELDS: dict[str, Any] = {
    "data": DATA,
    "model": {"architecture": "returns_ffnn"},
    "trainer": {"max_epochs": 1, "limit_train_batches": 3, "accelerator": "cpu"},
    "wandb": "disabled",
}
DIGITS: dict[str, Any] = {
    "data": "Digits",
    "model": {"architecture": "linear"},
    "trainer": {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 2, "accelerator": "cpu"},
    "wandb": "disabled",
}


def test_walk_forward(capfd: pytest.CaptureFixture[str]) -> None:
    before, threads = dict(os.environ), torch.get_num_threads()
    folds: list[str] = []
    walk = lc.walk_forward(
        FIELDS, train_months=36, first_test="2019-01", seed=2, on_fold=lambda run, line: folds.append(line)
    )
    assert walk.status == "finished" and walk.record.seed == 2 and walk.config["train_months"] == 36
    assert len(folds) == len([*walk.folder.glob("folds/*/*/run.json")]) >= 1
    assert {"date", "ticker", "prediction", "outcome"} <= {*walk.predictions.columns}
    report = walk.report()
    assert report.page == walk.folder / "report.html" and "model" in report.frame.index
    with pytest.raises(lc.UserError, match=f"is a walk-forward: `walk_forward\\(resume='{walk.record.id}'\\)`"):
        lc.train(resume=walk.folder)
    assert walk.resume() is walk and walk.status == "finished"  # nothing is left to be trained
    assert dict(os.environ) == before and torch.get_num_threads() == threads
    assert capfd.readouterr() == ("", "")


def test_sweep(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"search": ["model.lr=[0.01,0.1]"], "sampler": "grid", "trials": 2}
    found = lc.sweep(DIGITS, **options, experiment="two", on_trial=lines.append)
    assert len(lines) == 2 and set(found.best) == {"model.lr"} and [*found.trials["state"]] == ["finished"] * 2
    assert found.config is not None and lc.Config.load(found.config).flat()["model.lr"] == found.best["model.lr"]
    again = lc.sweep(resume="two", on_trial=lines.append)
    assert len(lines) == 2 and again.best == found.best
    assert capfd.readouterr() == ("", "")


def test_submit_needs_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(lc.UserError, match=r"Slurm|sbatch"):
        lc.submit(DIGITS, slurm=lc.Slurm(time=90), seeds=range(3))
    with pytest.raises(lc.UserError, match="`seeds` start new runs"):
        lc.submit(DIGITS, seeds=[1], seed=2)
    assert not Path("runs").exists()


def test_lists_and_comparison() -> None:
    first, second = (lc.fit(DIGITS, seed=seed, runs_dir="some") for seed in (1, 2))
    assert [*lc.list_runs("some").index] == [f"digits_linear/{run.record.id}" for run in (first, second)]
    frame = lc.compare("some", group_by="seed")
    assert len(frame) == 1 and int(frame["val/acc n"].iloc[0]) == 2
    assert "lenet5" in lc.list_architectures().index and "Digits" in lc.list_data().index
    listed = lc.list_experiments()
    assert len(listed) > 40 and "mnist_lenet5" in listed.index
