"""A run that goes on equals, bit for bit, one that was never broken off: in the middle of an epoch, too."""

import os
import signal
from pathlib import Path

import pytest
from pytorch_lightning import Callback, Trainer
from run_folders import learned, logged, same

from lightning_cnn.cli import main

# all that draws or remembers: order, dropout, augmentation, gathered gradients, averaged weights, a schedule
FEATURES = [
    *["fit", "--data", "Digits", "--data.batch_size", "64", "--model.architecture", "ffnn", "--wandb", "disabled"],
    *["--data.augment.shift", "0.1", "--data.augment.mixup", "0.2", "--trainer.accumulate_grad_batches", "2"],
    *["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.9", "--model.schedule", "cosine"],
    *["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "2", "--checkpoint.every_n_steps", "2"],
    *["--trainer.accelerator", "cpu"],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never broken off."""
    runs = tmp_path_factory.mktemp("whole")
    assert main([*FEATURES, "--experiment", "whole", "--runs_dir", str(runs)]) == 0
    (folder,) = runs.glob("*/*")
    return folder


def broken_off(batch: int, *words: str) -> Path:
    """A run that crashed before a batch, and went on."""
    with pytest.raises(RuntimeError, match="pulled the plug"):
        crash = ["--trainer.callbacks+=disturbing.Crash", "--trainer.callbacks.batch", str(batch)]
        main([*FEATURES, *words, *crash, "--experiment", "parts"])
    (parts,) = Path("runs/parts").iterdir()
    assert main(["fit", "--resume", str(parts)]) == 0
    return parts


@pytest.mark.parametrize("batch", [5, 18, 27])
def test_a_run_that_goes_on_equals_an_unbroken_one(batch: int, whole: Path) -> None:
    parts = broken_off(batch)
    for name in ("last.ckpt", "best.ckpt"):
        assert same(learned(parts, name), learned(whole, name))
    assert logged(parts) == logged(whole)


class Stop(Callback):
    """Sends SIGTERM within the validation after the first epoch, whose batches have all been seen then."""

    def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
        if not trainer.sanity_checking and not Path("stopped").exists():
            Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_was_stopped_in_its_validation(whole: Path) -> None:
    assert main([*FEATURES, "--trainer.callbacks+=test_resumption.Stop", "--experiment", "parts"]) == 143
    (parts,) = Path("runs/parts").iterdir()
    assert main(["fit", "--resume", str(parts)]) == 0
    for name in ("last.ckpt", "best.ckpt"):
        assert same(learned(parts, name), learned(whole, name))
    assert logged(parts) == logged(whole)


def test_muon_goes_on(whole: Path) -> None:
    """It keeps a state of another kind for biases."""
    muon = ["--model.optimizer", "nmuon", "--model.optimizer_options.fallback_list", "[*head*]"]
    assert main([*FEATURES, *muon, "--experiment", "muon"]) == 0
    (unbroken,) = Path("runs/muon").iterdir()
    parts = broken_off(18, *muon)
    assert same(learned(parts, "last.ckpt"), learned(unbroken, "last.ckpt"))
    assert not same(learned(parts, "last.ckpt"), learned(whole, "last.ckpt"))
    assert logged(parts) == logged(unbroken)
