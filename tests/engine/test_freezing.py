"""Layers that stop learning in the course of a training."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from run_folders import learned, only_run, same
from small_data import write_image_folder
from torch import Tensor, nn
from watching import Watcher, check_processes_agree

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.datamodules import ImageFolder
from lightning_cnn.engine.freezing import LayerFreezing, check_freezing
from lightning_cnn.errors import UserError
from lightning_cnn.modules import ImageClassifier

FREEZING = ["--trainer.callbacks+=LayerFreezing", "--trainer.callbacks.layers", "features.0.0"]
FREEZING += ["--trainer.callbacks.epoch", "2"]
FIRST = ("conv1", "bn1", "layer1")


def fit(tmp_path: Path, *callbacks: Callback, epochs: int = 4, ckpt: str | None = None, **options: Any) -> Watcher:
    """Trains a ResNet on a few batches an epoch, its first layers for two epochs."""
    if not (tmp_path / "own").exists():
        write_image_folder(tmp_path / "own", classes=3, count=12)
    torch.manual_seed(0)
    data = ImageFolder(str(tmp_path / "own"), image_size=32, batch_size=12)
    model = ImageClassifier("resnet10t", num_classes=3, in_channels=3, image_size=32, lr=0.01, **options)
    watcher = Watcher()
    trainer = Trainer(
        max_epochs=epochs, callbacks=[LayerFreezing(FIRST, 2), watcher, *callbacks], logger=False, accelerator="cpu",
        default_root_dir=tmp_path, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    return watcher


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "nmuon"])
def test_frozen_layers_keep_weights_and_statistics(tmp_path: Path, optimizer: str) -> None:
    watcher = fit(tmp_path, optimizer=optimizer, weight_decay=0.1)
    later = {name for name in watcher.before if not name.startswith(FIRST)}
    assert watcher.changed[:2] == [set(watcher.before)] * 2
    assert watcher.changed[2:] == [later] * 2
    assert "layer1.0.bn1" in watcher.training[1]
    assert not any(name.startswith(FIRST) for name in watcher.training[2] | watcher.training[3])
    assert "layer2.0.bn1" in watcher.training[3]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_training_freezes_as_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    fit(tmp_path, epochs=stop)
    watcher = fit(tmp_path, ckpt=str(tmp_path / "end.ckpt"))
    later = {name for name in watcher.before if not name.startswith(FIRST)}
    assert watcher.changed == ([set(watcher.before)] * 2 + [later] * 2)[stop:]


class Backward(Callback):
    """Notes in which epochs the backward pass reaches the output of a layer, and in which it does not."""

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.reached: set[tuple[int, bool]] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if torch.is_grad_enabled():
                self.reached.add((trainer.current_epoch, output.requires_grad))

        pl_module.network.get_submodule(self.layer).register_forward_hook(note)  # type: ignore[union-attr, operator]


def test_the_backward_pass_ends_behind_frozen_layers(tmp_path: Path) -> None:
    end = Backward("layer1")
    fit(tmp_path, end)
    assert end.reached == {(0, True), (1, True), (2, False), (3, False)}


def test_averaged_weights_go_on_with_those_that_are_frozen(tmp_path: Path) -> None:
    watcher = fit(tmp_path, EMAWeightAveraging(decay=0.5), epochs=12)
    kept = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]
    frozen = watcher.before["conv1.0.weight"]  # ten more epochs bring the average to them
    assert torch.allclose(kept["network.conv1.0.weight"], frozen, atol=1e-5)


def test_processes_share_the_gradients_of_the_rest(tmp_path: Path) -> None:
    """DDP waits for the gradients of what learned when it was set up."""
    options: dict[str, Any] = {"num_classes": 10, "in_channels": 1, "image_size": 28, "optimizer": "momentum"}
    freezing = LayerFreezing(["features.0.0"], 1)
    check_processes_agree(lambda: ImageClassifier("lenet5", lr=0.01, **options), tmp_path, callbacks=[freezing])


@pytest.mark.parametrize(
    ("layers", "epoch", "said"),
    [
        (["feature.0"], 1, "'feature.0': the network has no such layer; did you mean features.0"),
        (["zzz"], 1, "'zzz': the network has no such layer; there are features, head, and what they contain"),
        ([""], 1, "'': the network has no such layer"),
        (["features.0.1"], 1, "nothing in them learns: name other layers"),
        (["features", "head"], 1, "nothing else would learn: name fewer layers"),
        (["features"], 0, "`trainer.callbacks.epoch` 0: it must be at least 1"),
    ],
)
def test_layers_that_can_not_be_frozen(tmp_path: Path, layers: list[str], epoch: int, said: str) -> None:
    callback = {"class_path": "LayerFreezing", "init_args": {"layers": layers, "epoch": epoch}}
    with pytest.raises(UserError) as error:
        lc.train("digits_lenet5", runs_dir=tmp_path / "runs", trainer={"callbacks": [callback]})
    assert said in str(error.value)
    assert not [*tmp_path.glob("runs/*/*")]


def test_two_that_freeze_everything_together(tmp_path: Path) -> None:
    both = [{"class_path": "LayerFreezing", "init_args": {"layers": name, "epoch": 1}} for name in ("features", "head")]
    with pytest.raises(UserError, match=r"\['head'\]: nothing else would learn"):
        lc.train("digits_lenet5", runs_dir=tmp_path / "runs", trainer={"callbacks": both})
    assert not (tmp_path / "runs").exists()


def test_a_module_without_a_network() -> None:
    with pytest.raises(UserError, match="freezes layers of `network`, which LightningModule does not have"):
        check_freezing([LayerFreezing("a", 1)], LightningModule())


def test_what_never_freezes_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="LayerFreezing from epoch 2 on, counted from 0, of 2: nothing is frozen"):
        fit(tmp_path, epochs=2)


def test_layers_are_not_frozen_and_unfrozen() -> None:
    model = ImageClassifier("resnet10t", num_classes=3, in_channels=3, image_size=32, transfer="staged")
    with pytest.raises(
        UserError, match="LayerFreezing can't be combined with FineTuning, which freezes and unfreezes layers"
    ):
        check_freezing([LayerFreezing("conv1", 1)], model)


def test_a_run_that_goes_on_is_bit_for_bit_an_unbroken_one() -> None:
    words = ["fit", "--data", "Digits", "--model.architecture", "lenet5", "--wandb", "disabled", *FREEZING]
    words += ["--trainer.limit_train_batches", "4", "--checkpoint.every_n_steps", "1"]
    assert main([*words, "--trainer.max_epochs", "4", "--experiment", "whole"]) == 0
    whole = only_run()
    striking = ["--trainer.callbacks+=test_freezing.Strike", "--experiment", "broken"]
    assert main([*words, *striking, "--trainer.max_epochs", "4"]) == 143
    (broken,) = Path("runs/broken").iterdir()
    assert main(["fit", "--resume", str(broken)]) == 0
    assert same(learned(whole, "last.ckpt"), learned(broken, "last.ckpt"))


class Strike(Callback):
    """Ends the training by a signal after the second step of its third epoch, in which layers are frozen."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 10 and not Path("struck").exists():
            Path("struck").touch()
            os.kill(os.getpid(), signal.SIGTERM)
