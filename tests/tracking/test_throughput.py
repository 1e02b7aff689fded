"""Images per second: of the training alone."""

import time
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_cnn.datamodules import Digits
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.tracking.throughput import Throughput


class Clock(ImageClassifier):
    """A step takes a second, a batch of a validation a hundred."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        now[0] += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        now[0] += 100
        return super().validation_step(batch, batch_idx)


now = [0.0]


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}, {"accumulate_grad_batches": 3}])
def test_validations_take_no_time_of_the_training(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    rates = []

    class Noted(Throughput):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            rates.append(float(trainer.callback_metrics["train/images_per_s"]))

    trainer = Trainer(
        max_epochs=2, limit_train_batches=8, limit_val_batches=2, callbacks=[Noted()], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer.fit(Clock("linear", num_classes=10, in_channels=1, image_size=28), Digits(batch_size=16))
    assert rates == [16, 16]
