"""Averaged weights: what is validated, kept, tested and predicted with are the same, for every module."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from run_folders import learned, only_run, record, same
from torch.nn import functional as F

from lightning_cnn.cli import main
from lightning_cnn.config.checkpoint import read_checkpoint
from lightning_cnn.datamodules import Digits
from lightning_cnn.engine.loading import load_model
from lightning_cnn.modules import ImageClassifier

QUIET = ["--wandb", "disabled", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
EMA = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.8"]
# a small network with batch normalization, whose running statistics are averaged, too
DIGITS = ["--data", "Digits", "--model.architecture", "test_efficientnet", "--model.lr", "0.01", "--trainer.max_epochs"]
DIGITS += ["2", "--trainer.limit_train_batches", "8"]


class Mean(WeightAveraging):
    """A user's own: the mean of the weights after each epoch from the second on."""

    def __init__(self) -> None:
        super().__init__()

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= 1


class Plain(ImageClassifier):
    """A user's own: names a metric of the validation as he likes, and logs another one now and then."""

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("accuracy", self.trainer.callback_metrics["val/acc"])
        if self.trainer.state.fn == "fit" and self.trainer.global_step < 10:
            self.log("val/early", float(self.trainer.global_step))


class Crash(Callback):
    """Breaks off before the test, once."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not Path("crashed").exists():
            Path("crashed").touch()
            raise RuntimeError("pulled the plug")


def measured(verb: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """What `validate` or `test` prints of a checkpoint."""
    capsys.readouterr()
    assert main([verb, "--ckpt_path", str(checkpoint), *QUIET[2:4]]) == 0
    stage = {"validate": "val", "test": "test"}[verb]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    start = lines.index([stage])
    return {f"{stage}/{line[0]}": float(line[1]) for line in lines[start + 1 :] if len(line) == 2}


def check(folder: Path, capsys: pytest.CaptureFixture[str], validated: bool = True) -> None:
    """Compares what the run says of its best checkpoint with what the file gives."""
    saved, name = record(folder)["metrics"], "best.ckpt"
    found = measured("test", folder / "checkpoints" / name, capsys)
    if validated:
        found |= measured("validate", folder / "checkpoints" / name, capsys)
        best = record(folder)["best"]
        assert best["value"] == saved[best["metric"]]
    assert len(found) >= 4
    assert found == pytest.approx({metric: saved[metric] for metric in found}, abs=6e-5)


@pytest.mark.parametrize(
    "averaging",
    [
        EMA,
        [*EMA, "--trainer.callbacks.update_starting_at_step", "12", "--trainer.val_check_interval", "0.5"],
        pytest.param([*EMA, "--trainer.callbacks.update_starting_at_epoch", "1"], marks=pytest.mark.slow),
        pytest.param(["--trainer.callbacks+=test_averaging.Mean"], marks=pytest.mark.slow),
    ],
    ids=["always", "late, two validations an epoch", "after epochs", "own"],
)
def test_one_set_of_weights(averaging: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *DIGITS, *averaging, *QUIET]) == 0
    folder = only_run()
    check(folder, capsys)
    best = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    model, preprocessing = load_model(best)
    data = Digits()
    data.setup("test")
    data.load_state_dict({"preprocessing": preprocessing.to_dict()})
    logits, labels = [], []
    with torch.no_grad():
        for batch in data.test_dataloader():
            images, label = data.on_after_batch_transfer(batch, 0)
            logits.append(model.eval()(images))
            labels.append(label)
    saved = record(folder)["metrics"]
    right = torch.cat(logits).argmax(1) == torch.cat(labels)
    assert float(right.float().mean()) == pytest.approx(saved["test/acc"], abs=1e-6)
    assert float(F.cross_entropy(torch.cat(logits), torch.cat(labels))) == pytest.approx(saved["test/loss"], abs=1e-5)


def test_until_averaging_begins_what_learns_is_validated() -> None:
    """Lightning validates, and keeps, the weights of the start."""
    late = [*EMA, "--trainer.callbacks.update_starting_at_step", "1000"]
    assert main(["train", *DIGITS, *late, "--experiment", "late", *QUIET]) == 0
    assert main(["train", *DIGITS, "--experiment", "never", *QUIET]) == 0
    (late_run,), (never,) = Path("runs/late").iterdir(), Path("runs/never").iterdir()
    for name in ("best.ckpt", "last.ckpt"):
        found = learned(late_run, name)
        assert same(found["state_dict"], found["current_model_state"])
        assert same(found["state_dict"], learned(never, name)["state_dict"])
    measured = ("val/loss", "val/acc", "test/loss", "test/acc")
    assert all(record(late_run)["metrics"][name] == record(never)["metrics"][name] for name in measured)


@pytest.mark.parametrize("validated", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_test_without_a_training_before_it(validated: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run that goes on only the test may be left."""
    words = [] if validated else ["--trainer.limit_val_batches", "0", "--checkpoint.monitor", "train/loss"]
    crash = "--trainer.callbacks+=test_averaging.Crash"
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main(["train", *DIGITS, *EMA, crash, *words, *QUIET])
    folder = only_run()
    assert main(["train", "--resume", folder.name]) == 0
    check(folder, capsys, validated)


@pytest.mark.parametrize("task", ["numbers", "boxes"])
def test_house_numbers(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {
        "numbers": ["--data", "test_house_number_reader.DigitRows", "--data.image_size", "16", "--data.margin", "2"],
        "boxes": ["--data", "test_digit_detector.FourPhotos", "--data.image_size", "64", "--data.batch_size", "4"],
    }[task]
    words += {
        "numbers": ["--data.color", "grey", "--model", "HouseNumberReader", "--model.architecture_options.width", "16"],
        "boxes": ["--model", "DigitDetector", "--checkpoint.monitor", "val/map", "--checkpoint.mode", "max"],
    }[task]
    words += ["--model.architecture", "house_number_resnet"] if task == "numbers" else []
    words += ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "8"]
    assert main(["train", *words, *EMA, *QUIET]) == 0
    check(only_run(), capsys)


def test_the_folds_of_a_walk_forward() -> None:
    """The report is made of predictions: with the weights that each fold was tested with."""
    words = ["--data", "SyntheticReturns", "--data.stocks", "20", "--data.months", "75", "--data.lags", "12"]
    words += ["--data.val_months", "6", "--model.lr", "0.01", "--trainer.max_epochs", "2", "--train_months", "50"]
    assert main(["walkforward", *words, *EMA, "--wandb", "disabled"]) == 0
    folds = [path.parent for path in only_run().glob("folds/*/*/run.json")]
    assert folds
    for folder in folds:
        answers = pd.read_parquet(folder / "predictions.parquet")
        right = (answers["prediction"] > 0.5) == (answers["outcome"] > 0)
        assert np.mean(right) == pytest.approx(record(folder)["metrics"]["test/acc"], abs=1e-6)


def test_averages_that_no_checkpoint_holds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    swa = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"]
    assert main(["train", *DIGITS, *swa, *QUIET]) == 2
    assert "EMAWeightAveraging" in capsys.readouterr().err
    assert not list(Path().glob("runs/*/*"))


@pytest.mark.parametrize("monitor", [["val/loss", "min"], ["accuracy", "max"], ["train/loss", "min"]], ids=str)
def test_best_has_the_metrics_of_its_own_weights(monitor: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Validations within an epoch count; Lightning's best had the metric of one step and the weights of another."""
    words = ["--data", "Digits", "--model.architecture", "ffnn", "--trainer.max_epochs", "2"]
    words += ["--trainer.val_check_interval", "0.7", "--trainer.limit_train_batches", "10"]
    words += ["--checkpoint.monitor", monitor[0], "--checkpoint.mode", monitor[1], "--model", "test_averaging.Plain"]
    assert main(["train", *words, *QUIET]) == 0
    folder = only_run()
    saved, best = record(folder), record(folder)["best"]
    metrics = pd.read_csv(folder / "metrics.csv")
    values = metrics[metrics[monitor[0]].notna()]
    chosen = values.loc[getattr(values[monitor[0]], f"idx{monitor[1]}")()]
    assert best["value"] == pytest.approx(chosen[monitor[0]], rel=1e-6)
    assert (best["epoch"], best["step"]) == (chosen["epoch"], chosen["step"] + 1)
    at = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert at["global_step"] == best["step"]
    found = measured("validate", folder / "checkpoints" / "best.ckpt", capsys)
    assert ("val/early" in saved["metrics"]) == (best["step"] < 10)  # no value of other weights
    end = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    if monitor[0] != "train/loss" or best["step"] == end:  # which is validated
        assert found == pytest.approx({name: saved["metrics"][name] for name in found}, abs=6e-5)
    else:  # the weights at the end of an epoch, which no validation measured
        assert not [name for name in saved["metrics"] if name.startswith("val")]
    assert "val/early" not in saved["last"]
    assert saved["last"]["val/loss"] == pytest.approx(metrics["val/loss"].dropna().iloc[-1], rel=1e-6)
