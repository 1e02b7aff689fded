"""Watches which parts of a network learn, and when."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor


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
