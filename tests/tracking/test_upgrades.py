"""Runs that version 0.1 made: listed, compared, tested, predicted with, gone on with and reported on as its own were.

The folders in `fixtures/v01` were made by commit 4866f80, without figures and TensorBoard's files, to keep them small.
"""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from price_files import panel, write
from pytorch_lightning import Callback
from run_folders import record

from lightning_cnn.cli import main
from lightning_cnn.config.checkpoint import class_and_arguments
from lightning_cnn.config.config import Config
from lightning_cnn.config.messages import CALLBACKS
from lightning_cnn.config.trust import class_named
from lightning_cnn.datamodules import SyntheticReturns
from lightning_cnn.errors import UserError
from lightning_cnn.resume.checkpoint_file import load_checkpoint
from lightning_cnn.tracking import upgrades
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.settings import settings_of
from lightning_cnn.tracking.upgrades import class_path, upgraded_config

NAMES = ("image", "returns", "sweep", "walkforward")


@pytest.fixture
def runs() -> Path:
    """A copy of the old runs, in the working directory."""
    return Path(shutil.copytree(Path(__file__).parents[1] / "fixtures" / "v01", "runs"))


def old_run(name: str) -> Path:
    """The folder of an old run; of the sweep's, the first."""
    return min(Path("runs", name).glob("2*"))


def output(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that ends well."""
    capsys.readouterr()
    assert main(words) == 0
    return capsys.readouterr().out


def test_list_shows_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[dict[str, Any]] = json.loads(output(["list", "runs", "--json"], capsys))["runs"]
    assert {run["name"].split("/")[0] for run in found} == set(NAMES)
    assert all(run["status"] == "finished" for run in found)


def test_compare_puts_them_beside_each_other(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "image", "sweep", "--csv", "--sort", "val/loss"]
    rows = [*csv.DictReader(output(words, capsys).splitlines())]
    assert [row["run"].split("/")[0] for row in rows] == ["sweep", "sweep", "sweep", "image"]
    best = record(old_run("image"))["best"]["value"]
    assert float(rows[-1]["val/loss"]) == pytest.approx(best, abs=5e-5)
    assert rows[-1]["model.architecture"] == "lenet5_1998"
    assert "test/ic" in output(["compare", "walkforward", "returns"], capsys)


@pytest.mark.parametrize("name", ["image", "returns"])
def test_test_gives_the_metrics_that_it_gave(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old_run(name)
    before = record(folder)["metrics"]
    out = output(["test", "--ckpt_path", str(folder / "checkpoints" / "best.ckpt")], capsys)
    shown = {line.split()[0]: line.split()[-1] for line in out.splitlines() if len(line.split()) == 2}
    for metric in ("loss", "acc"):
        assert float(shown[metric]) == pytest.approx(before[f"test/{metric}"], abs=6e-5)


def test_predict_reads_images(runs: Path) -> None:
    Image.new("L", (8, 8), 200).save("digit.png")
    checkpoint = old_run("image") / "checkpoints" / "best.ckpt"
    assert main(["predict", "--ckpt_path", str(checkpoint), "--images", "digit.png"]) == 0
    (row,) = csv.DictReader(Path("predictions.csv").read_text().splitlines())
    assert row["class"] in map(str, range(10)) and 0.1 < float(row["probability"]) <= 1


@pytest.mark.parametrize("name", ["returns", "walkforward"])
def test_predict_ranks_stocks(name: str, runs: Path) -> None:
    prices = write(panel(12, "2011-01", "2013-12"), Path("prices.parquet"))
    (checkpoint, *_) = sorted(old_run(name).rglob("best.ckpt"))
    assert main(["predict", "--ckpt_path", str(checkpoint), "--prices", str(prices)]) == 0
    assert len(Path("ranking.csv").read_text().splitlines()) == 1 + 12


@pytest.mark.parametrize("name", ["image", "returns", "sweep"])
def test_training_goes_on(name: str, runs: Path) -> None:
    folder = old_run(name)
    epochs = record(folder)["epochs"]
    words = ["train", "--resume", str(folder), "--trainer.max_epochs", str(epochs + 1), "--wandb", "disabled"]
    assert main(words) == 0
    after = record(folder)
    assert after["epochs"] == epochs + 1 and after["status"] == "finished"
    rows = [*csv.DictReader((folder / "metrics.csv").read_text().splitlines())]
    assert [int(row["epoch"]) for row in rows if row["val/loss"]] == [*range(epochs + 1)]


def test_its_configuration_is_an_experiment(runs: Path) -> None:
    config = old_run("image") / "config.yaml"
    assert main(["train", "--config", str(config), "--experiment", "again", "--wandb", "disabled"]) == 0
    old, new = (record(old_run(name)) for name in ("image", "again"))
    assert new["parameters"] == old["parameters"]
    assert new["metrics"]["test/loss"] == pytest.approx(old["metrics"]["test/loss"], rel=1e-3)


def test_the_walk_forward_is_reported_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old_run("walkforward")
    out = output(["report", str(folder)], capsys)
    before = record(folder)["metrics"]
    (line,) = (line for line in out.splitlines() if line.startswith("model"))
    assert f"{before['test/auc']:.4f}" in line and f"{before['test/ic']:.4f}" in line
    assert (folder / "report.html").is_file()
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert f"{len(predictions):,} predictions" in out


def test_a_finished_walk_forward_trains_nothing_again(runs: Path) -> None:
    folder = old_run("walkforward")
    before = {path: path.read_bytes() for path in folder.glob("folds/*/*/checkpoints/*")}
    assert len(before) == 6
    main(["walkforward", "--resume", str(folder)])
    assert {path: path.read_bytes() for path in folder.glob("folds/*/*/checkpoints/*")} == before


def test_the_sweep_goes_on(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output(["sweep", "--resume", "sweep", "--trials", "4"], capsys)
    assert len([*Path("runs/sweep").glob("2*")]) == 4
    assert "in trial" in out


def test_a_record_is_saved_in_the_present_form(runs: Path) -> None:
    folder = old_run("image")
    old = record(folder)
    run = RunFolder.open(folder)
    run.save()
    new = record(folder)
    assert "format" not in old and "last" not in old and new["format"] == 2
    both = new["last"] | new["metrics"]
    assert both.keys() == old["metrics"].keys() and new["last"].items() <= old["metrics"].items()
    assert RunFolder.open(folder).record == run.record


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("modules.image_classifier.ImageClassifier", "modules.ImageClassifier"),
        ("datamodules.cifar10.CIFAR10", "datamodules.CIFAR10"),
        ("datamodules.Digits", "datamodules.Digits"),
        ("callbacks.Vitals", "tracking.throughput.Throughput"),
        ("callbacks.vitals.Vitals", "tracking.throughput.Throughput"),
        ("callbacks.best_checkpoint.BestCheckpoint", "resume.checkpoints.BestCheckpoint"),
        ("callbacks.Nothing", "callbacks.Nothing"),
    ],
)
def test_old_class_paths(old: str, new: str) -> None:
    config = {"trainer": {"callbacks": [{"class_path": f"lightning_cnn.{old}", "init_args": {"x": [1]}}]}}
    ((item,),) = upgraded_config(config)["trainer"].values()
    assert item == {"class_path": f"lightning_cnn.{new}", "init_args": {"x": [1]}}
    if old != new:
        assert class_named(f"lightning_cnn.{old}", object).__name__ == new.rpartition(".")[2]


def test_present_class_paths_stay() -> None:
    assert [class_path(path) for path in CALLBACKS] == [*CALLBACKS]


def test_the_recipe_has_a_new_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old_run("returns")
    assert "recipe: honest" in (folder / "config.yaml").read_text()
    # in its configuration, in its settings as compare and the report show them, and in its checkpoint
    assert Config.load(folder / "config.yaml")["data"]["init_args"]["recipe"] == "point_in_time"
    assert (settings_of(folder) or {})["data.recipe"] == "point_in_time"
    _, arguments = class_and_arguments(load_checkpoint(folder / "checkpoints" / "best.ckpt"), "data") or ("", {})
    assert arguments["recipe"] == "point_in_time"
    # who types the old name is told the new one
    assert main(["train", "--data", "SyntheticReturns", "--data.recipe", "honest"]) == 2
    assert "point_in_time, book" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"`data.recipe` 'honest': expected one of point_in_time, book"):
        SyntheticReturns(recipe="honest")


def test_every_old_callback_is_there() -> None:
    for name in upgrades.CALLBACKS:
        assert class_named(f"lightning_cnn.callbacks.{name}", Callback).__name__ == name


def test_the_table_of_an_image_table_is_called_labels() -> None:
    present = {"class_path": "lightning_cnn.datamodules.ImageTable", "init_args": {"labels": "tags.csv", "root": "x"}}
    former = {"class_path": "lightning_cnn.datamodules.ImageTable", "init_args": {"table": "tags.csv", "root": "x"}}
    assert upgraded_config({"data": former}) == {"data": present} == upgraded_config({"data": present})
    flat = {"_class_path": "lightning_cnn.datamodules.images.label_table.ImageTable", "table": "tags.csv"}
    assert upgraded_config(flat) == {"_class_path": "lightning_cnn.datamodules.ImageTable", "labels": "tags.csv"}
    other = {"class_path": "lightning_cnn.datamodules.RunLengthMasks", "init_args": {"table": "runs.csv"}}
    assert upgraded_config(other) == other
