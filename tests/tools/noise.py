"""A small image task on noise, and the learning rates of its training."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.modules import ImageClassifier

CLASSES, SIDE = 12, 8


class Noise(LightningDataModule):
    """50 images of noise for training, 37 for validation and test each: the last batch of 16 is a short one."""

    def __init__(self, labels: Tensor | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.train = torch.randn(50, 1, SIDE, SIDE, generator=generator)
        self.train_labels = torch.randint(0, CLASSES, (50,), generator=generator)
        self.images = torch.randn(37, 1, SIDE, SIDE, generator=generator)
        self.labels = torch.randint(0, CLASSES, (37,), generator=generator) if labels is None else labels

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.train, self.train_labels), batch_size=16)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.images, self.labels), batch_size=16)

    test_dataloader = val_dataloader


def classifier(**options: Any) -> ImageClassifier:
    torch.manual_seed(0)
    given = {"architecture": "ffnn", "num_classes": CLASSES, "image_size": SIDE, **options}
    return ImageClassifier(**given)


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(**{"accelerator": "cpu", "max_epochs": 1, "callbacks": list(callbacks), **quiet, **options})


class Rates(Callback):
    """Notes the learning rate with which each step is taken."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        self.seen += rates


def rates(model: ImageClassifier, **options: Any) -> list[float]:
    """The learning rates of all steps, four an epoch; behind them the one that the training ends with."""
    noted = Rates()
    run = trainer(noted, limit_val_batches=0, **options)
    run.fit(model, Noise())
    return [*noted.seen, run.optimizers[0].param_groups[0]["lr"]]
