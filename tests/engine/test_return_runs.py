"""Runs on price files that go on: with other weights, from other places, with other prices."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from price_files import panel, write
from run_folders import only_run, record, runs_in_order
from sklearn.metrics import roc_auc_score

from lightning_cnn.cli import main

QUICK = ["--data.lags", "3", "--data.val_months", "6", "--trainer.max_epochs", "1", "--wandb", "disabled"]


def returns_of(prices: Path) -> list[str]:
    return ["--data", "MonthlyReturns", "--data.prices", str(prices), *QUICK]


def test_a_report_is_of_the_weights_that_the_run_has_now(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["--data", "SyntheticReturns", "--data.stocks", "40", "--data.months", "60", "--runs_dir", "elsewhere"]
    assert main(["train", *drawn, *QUICK, "--model.lr", "0.02"]) == 0
    run = runs_in_order(Path("elsewhere"))[0]
    assert main(["train", *drawn, *QUICK, "--model.lr", "0.03"]) == 0
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert "2 configurations tried" in capsys.readouterr().out
    before = pd.read_parquet(run / "predictions.parquet")
    assert main(["train", "--resume", str(run), "--trainer.max_epochs", "4"]) == 0
    assert main(["report", str(run)]) == 0
    now = pd.read_parquet(run / "predictions.parquet")
    assert (before["prediction"] != now["prediction"]).mean() > 0.9
    auc = roc_auc_score(now["outcome"] > 0, now["prediction"])
    assert record(run)["metrics"]["test/auc"] == pytest.approx(auc, abs=1e-4)


def test_a_price_file_that_was_continued_has_other_test_months(capsys: pytest.CaptureFixture[str]) -> None:
    closes = panel(12, "2007-01", "2011-12")
    path = write(closes[:"2011-06"], Path("p.parquet"))
    assert main(["train", *returns_of(path)]) == 0
    run = only_run()
    write(closes, path)
    assert main(["report", str(run)]) == 2
    error = capsys.readouterr().err
    assert "2007-01 to 2011-12, 60 months; then 2007-01 to 2011-06, 54 months" in error and "restore" in error
    assert not (run / "predictions.parquet").exists()
    write(closes[:"2011-06"], path)
    assert main(["report", str(run)]) == 0


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (
            ["--first_test", "2010-01", "--test_months", "1"],
            "error: fold 2010-05_2010-05: all 12 outcomes of",
        ),
        (["--data.channels", '{"vix": {"file": "none.csv"}}'], "--data.channels vix: there is no file none.csv: name"),
    ],
)
def test_what_no_fold_can_use_is_said_before_the_first(
    further: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    closes = panel(12, "2007-01", "2010-12")
    closes.loc["2010-05"] = closes.loc["2010-04"].iloc[-1].to_numpy() * 0.9  # a month in which all stocks fall
    path = write(closes, Path("p.parquet"))
    assert main(["walkforward", *returns_of(path), "--train_months", "24", *further]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_walk_forward_on_a_folder_of_prices(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closes = panel(12, "2006-01", "2009-12")
    folder = Path("prices")
    folder.mkdir()
    for ticker in closes:
        closes[[ticker]].set_axis(["close"], axis=1).to_csv(folder / f"{ticker}.csv")
    words = ["--train_months", "18", "--embargo", "0", "--first_test", "2008-06"]
    assert main(["walkforward", *returns_of(folder), *words]) == 0
    run = only_run().resolve()
    # what is said of the prices stands in the record, and on the page
    facts = record(run)["data"]
    assert facts["layout"] == "one file per ticker" and facts["months"] == "2006-01 to 2009-12, 48 months"
    page = (run / "report.html").read_text()
    assert "unless your source has adjusted it" in page and "0 months purged before it" in page
    # without an embargo the training ends the month before the test
    folds = sorted(run.glob("folds/*/*/run.json"))
    assert len(folds) == 2
    for fold in folds:
        data = yaml.safe_load(fold.with_name("config.yaml").read_text())["data"]["init_args"]
        assert np.datetime64(data["train_end"], "M") == np.datetime64(data["test_start"], "M") - 1
        assert data["embargo"] == 0
    # from another place, and beside a file that is not read, it is the same; with other prices it is not
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    before = (run / "predictions.parquet").read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert main(["walkforward", "--resume", str(run)]) == 0, capsys.readouterr().err
    assert (run / "predictions.parquet").read_bytes() == before
    # fingerprints of version 0.2: whole paths, and files that were not read
    prints = run / "folds" / "data.sha256"
    lines = [line.split("  ") for line in prints.read_text().splitlines()]
    old = [f"{digest}  {folder.resolve() / place}\n" for digest, place in lines]
    others = [".DS_Store", "_old/T01.csv", ".ipynb_checkpoints/T01-checkpoint.csv", "notes.md"]
    prints.write_text("".join([*old, *(f"{'0' * 64}  {folder.resolve() / name}\n" for name in others)]))
    # version 0.2 left the embargo of the folds to the recipe: those that are still to be trained are like the finished
    shared = run / "folds" / "train.yaml"
    shared.write_text(shared.read_text().replace("embargo: 0\n", "embargo: null\n"))
    shutil.rmtree(folds[1].parent)
    assert main(["walkforward", "--resume", str(run)]) == 0, capsys.readouterr().err
    (anew,) = {*run.glob("folds/*/*/config.yaml")} - {folds[0].with_name("config.yaml")}
    assert yaml.safe_load(anew.read_text())["data"]["init_args"]["embargo"] is None
    monkeypatch.chdir(tmp_path)
    (folder / "T03.csv").unlink()
    assert main(["walkforward", "--resume", str(run)]) == 2
    assert "the price file has changed" in capsys.readouterr().err
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


def test_a_report_takes_one_process_whatever_the_training_took() -> None:
    drawn = ["--data", "SyntheticReturns", "--data.stocks", "40", "--data.months", "60"]
    assert main(["train", *drawn, *QUICK]) == 0
    run = only_run()
    assert main(["report", str(run)]) == 0
    once = pd.read_parquet(run / "predictions.parquet")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"] |= {"devices": 3, "num_nodes": 2, "strategy": "ddp"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "predictions.parquet").unlink()
    assert main(["report", str(run)]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(run / "predictions.parquet"), once)
