"""Synchronized batch normalization leaves the network what it is, whatever its normalizations contain."""

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import lightning_cnn.architectures  # noqa: F401 (registers them)
from lightning_cnn.cli import main
from lightning_cnn.engine.synced_norms import SyncedNorms
from lightning_cnn.engine.trainer import SILENT, make_trainer


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet20_cifar", "ghostnet_050"])
def test_the_network_stays_what_it_is(name: str) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"network": timm.create_model(name, num_classes=3)})
    images = torch.randn(4, 3, 64, 64)
    model["network"](images)  # so that statistics are not those of the beginning
    model.eval()
    expected = model["network"](images)
    kinds = [type(module) for module in model.modules()]
    keys = [*model.state_dict()]
    plugin = SyncedNorms()
    plugin.revert(model)  # as after an error before the training
    plugin.apply(model)
    synced: list[Any] = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    assert len(synced) > 5 and all(isinstance(module, nn.SyncBatchNorm) for module in synced)
    assert [*model.state_dict()] == keys
    assert torch.equal(model["network"](images), expected)
    for module in synced:  # what a training changes, and moving to a device replaces
        module.running_mean = module.running_mean + 0.1
        with torch.no_grad():
            module.bias += 0.1
    learned = model["network"](images)
    assert not torch.allclose(learned, expected)
    plugin.revert(model)
    assert [type(module) for module in model.modules()] == kinds and not any(module.training for module in synced)
    assert torch.equal(model["network"](images), learned)


def test_lightning_takes_the_plugin() -> None:
    trainer = make_trainer(accelerator="cpu", sync_batchnorm=True, strategy="ddp", devices=1, **SILENT)
    assert type(trainer.strategy._layer_sync) is SyncedNorms  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("architecture", "devices", "telling"),
    [
        ("cifar_fast", 1, "ShiftedBatchNorm2d, which the network contains, can't be synchronized: remove it"),
        ("resnet20_cifar", 2, "only GPUs can synchronize batch normalization: remove it"),
    ],
)
def test_what_can_not_be_synchronized_is_refused(
    architecture: str, devices: int, telling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", "Digits", "--data.image_size", "32", "--model.architecture", architecture]
    words += ["--trainer.sync_batchnorm", "true", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
    assert main([*words, "--trainer.devices", str(devices)]) == 2
    assert f"--trainer.sync_batchnorm: {telling}" in capsys.readouterr().err
