"""Watches which parts of a network learn, and when."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from lightning_cnn.datamodules import Digits


class Watcher(Callback):
    """Notes in which epochs each tensor of the network changes, and which modules are in training mode."""

    def __init__(self) -> None:
        self.before: dict[str, Tensor] = {}
        self.changed: list[set[str]] = []
        self.training: list[set[str]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.before = state_of(pl_module)
            named = pl_module.network.named_modules()  # type: ignore[union-attr, operator]
            self.training.append({name for name, module in named if module.training})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        after = state_of(pl_module)
        self.changed.append({name for name in after if not torch.equal(after[name], self.before[name])})


def state_of(module: LightningModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.network.state_dict().items()}  # type: ignore[union-attr, operator]


def check_processes_agree(make: Callable[[], LightningModule], folder: Path, **options: Any) -> None:
    """Trains on one process and on two, which share their gradients: all weights change, and become the same."""
    states = []
    for strategy, devices in (("auto", 1), ("ddp_spawn", 2)):
        seed_everything(0, verbose=False)  # the processes begin anew with its number
        model = make()
        trainer = Trainer(
            max_epochs=3, limit_train_batches=3, limit_val_batches=0, strategy=strategy, devices=devices,
            logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
            default_root_dir=folder, enable_checkpointing=False, **options,
        )  # fmt: skip
        before = state_of(model)
        trainer.fit(model, Digits(batch_size=64))
        states.append(state_of(model))
    one, two = states
    for name in one:
        assert not torch.equal(one[name], before[name]), name
        assert torch.allclose(one[name], two[name], atol=2e-5), name
