"""Trainings that ended early, and go on: for longer, in another run, or after a further interruption."""

import os
import signal
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from run_folders import only_run, record, runs_in_order

from lightning_cnn.cli import main
from lightning_cnn.engine.finite_loss import FiniteLoss

SMALL = ["--data", "Digits", "--model.architecture", "linear", "--trainer.limit_train_batches", "4"]
TRAIN = ["train", *SMALL, "--wandb", "disabled", "--trainer.max_epochs", "4"]
ENDS = "--trainer.callbacks+=test_early_ends.Ends"
STOPPING = ["EarlyStopping", "--trainer.callbacks.monitor", "val/loss", "--trainer.callbacks.min_delta", "100"]


class Ends(Callback):
    """Ends the training early in its second epoch, and once more by a signal in its fourth."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.should_stop = True
        if trainer.current_epoch == 3 and not Path("struck").exists():
            Path("struck").touch()
            os.kill(os.getpid(), signal.SIGTERM)


def ended_early() -> Path:
    """A run that has ended itself after two of its four epochs."""
    assert main([*TRAIN, ENDS, "--experiment", "first"]) == 0
    run = only_run()
    assert (record(run)["status"], record(run)["epochs"]) == ("finished", 2)
    return run


def test_what_went_on_after_an_early_end_goes_on_after_a_signal() -> None:
    run = ended_early()
    assert main(["train", "--resume", str(run), "--trainer.max_epochs", "6"]) == 143
    assert (record(run)["status"], record(run)["epochs"]) == ("interrupted", 4)
    assert main(["train", "--resume", str(run)]) == 0
    assert (record(run)["status"], record(run)["epochs"]) == ("finished", 6)


def test_a_new_run_from_one_that_ended_early_trains() -> None:
    run = ended_early()
    last = str(run / "checkpoints" / "last.ckpt")
    assert main([*TRAIN, "--ckpt_path", last, "--experiment", "second"]) == 0
    second = runs_in_order()[-1]
    assert record(second)["name"] == "second" and "test/acc" in record(second)["metrics"]
    assert torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 16


def test_an_early_end_before_a_test_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("pulled the plug")

        patch.setattr(Trainer, "test", fail)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            main([*TRAIN, ENDS])
    run = only_run()
    assert (record(run)["status"], record(run)["epochs"]) == ("failed", 2)
    Path("struck").touch()
    assert main(["train", "--resume", str(run), "--trainer.max_epochs", "5"]) == 0
    assert record(run)["epochs"] == 5 and "test/acc" in record(run)["metrics"]


def test_another_patience_is_that_of_the_resumed_run() -> None:
    assert (
        main([*TRAIN, f"--trainer.callbacks+={STOPPING[0]}", *STOPPING[1:], "--trainer.callbacks.patience", "1"]) == 0
    )
    run = only_run()
    assert record(run)["epochs"] == 2
    other = [f"--trainer.callbacks={STOPPING[0]}", *STOPPING[1:], "--trainer.callbacks.patience", "3"]
    assert main(["train", "--resume", str(run), "--trainer.max_epochs", "9", *other]) == 0
    assert record(run)["epochs"] == 4  # three in a row without a better one


def test_a_training_by_steps_is_told_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--wandb", "disabled", "--trainer.max_steps", "6"]) == 0
    run = only_run()
    assert main(["train", "--resume", str(run)]) == 2
    assert "has finished its 6 steps; to continue, add --trainer.max_steps 12" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--trainer.max_steps", "12"]) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 12


def test_the_best_of_another_run_is_not_that_of_one_that_starts_from_it() -> None:
    """Also where it was broken off before its first `last.ckpt`, and begins once more."""
    assert main([*TRAIN, "--experiment", "good", "--trainer.limit_train_batches", "1.0"]) == 0
    good = only_run()
    last = str(good / "checkpoints" / "last.ckpt")
    bad = [*TRAIN, "--ckpt_path", last, "--experiment", "bad", "--model.lr", "3", "--trainer.max_epochs", "5"]
    loops = torch.load(last, weights_only=True)["loops"]["fit_loop"]
    batch = loops["epoch_loop.batch_progress"]["total"]["processed"] + 2
    crash = ["--trainer.callbacks+=disturbing.Crash", "--trainer.callbacks.batch", str(batch)]
    with pytest.raises(RuntimeError, match="pulled the plug"):
        main([*bad, "--trainer.val_check_interval", "1", *crash])
    run = runs_in_order()[-1]
    assert (run / "checkpoints" / "best.ckpt").is_file() and not (run / "checkpoints" / "last.ckpt").exists()
    assert main(["train", "--resume", str(run)]) == 0
    best = record(run)["best"]["value"]
    assert best > record(good)["best"]["value"]
    rows = (run / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("val/loss")
    losses = [float(value) for row in rows[1:] if (value := row.split(",")[place])]
    assert best == pytest.approx(min(losses), abs=1e-6)


def test_steps_without_a_loss_are_looked_over() -> None:
    """Lightning hands on an empty result of a `training_step` that returns nothing."""
    FiniteLoss().on_train_batch_end(Trainer(accelerator="cpu", logger=False), LightningModule(), {}, None, 0)


def test_a_validation_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *TRAIN[1:], "--trainer.max_epochs", "1"]) == 0
    best = str(only_run() / "checkpoints" / "best.ckpt")
    assert main(["validate", "--ckpt_path", best, "--trainer.limit_val_batches", "0"]) == 2
    assert "nothing was measured: set --trainer.limit_val_batches to more than 0" in capsys.readouterr().err


class Begins(Callback):
    """Notes each epoch that begins, as callbacks are told."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with Path("begun").open("a") as file:
            file.write(f"{trainer.global_step}\n")


@pytest.mark.parametrize("limit", ["--trainer.max_steps", "--trainer.max_epochs"])
def test_every_epoch_begins_after_a_checkpoint_of_an_epochs_end(limit: str) -> None:
    """Lightning takes one by a metric of the training before it counts the epoch as complete."""
    each = 4 if limit.endswith("steps") else 1
    words = ["train", *SMALL, "--wandb", "disabled", "--checkpoint.monitor", "train/loss"]
    assert main([*words, limit, str(2 * each), "--experiment", "first"]) == 0
    best = only_run() / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["global_step"] == 8
    begins = ["--trainer.callbacks+=test_early_ends.Begins", "--experiment", "second"]
    assert main([*words, "--ckpt_path", str(best), limit, str(4 * each), *begins]) == 0
    assert Path("begun").read_text().split() == ["8", "12"]
    last = torch.load(runs_in_order()[-1] / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 16


def test_what_shows_the_weights_before_is_not_shown_for_those_after() -> None:
    assert main([*TRAIN, "--trainer.max_epochs", "1"]) == 0
    run = only_run()
    (run / "explain.html").write_text("a page")
    kept = {path.name for path in (run / "figures").iterdir() if not path.name.startswith("test_")}
    assert [*run.glob("figures/test_*.png")] and [*run.glob("tables/test_*.csv")] and kept
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs", "2"]) == 0
    assert not [*run.glob("figures/test_*"), *run.glob("tables/test_*"), *run.glob("explain.html")]
    assert kept <= {path.name for path in (run / "figures").iterdir()}
    assert not [name for name in record(run)["metrics"] if name.startswith("test/")]
