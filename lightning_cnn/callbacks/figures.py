"""The pictures of a run, in `figures/` and in the loggers."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_cnn import plots
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.loggers import log_figure
from lightning_cnn.tracking.run import METRICS

WORST = 25
PAIRS = [f"{stage}/{name}" for name in ("loss", "acc") for stage in ("train", "val")]


class Figures(Callback):
    """Examples at the start; curves, confusion matrix and worst examples at the end.

    It works with every module whose validation and test steps return `logits` `(batch, classes)` and `labels`
    `(batch,)`. Worst examples are those with the largest loss that rank zero has seen.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._confusion: MulticlassConfusionMatrix | None = None
        self._worst: list[Tensor] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws training images with their classes, and beside some of them what augmentation makes of them."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        path = self.folder / "figures" / "examples.png"
        if not hasattr(data, "plot") or not trainer.is_global_zero or path.exists():  # a resumed run has drawn them
            return
        log_figure(trainer, data.plot(), path)
        if getattr(getattr(data, "augmentation", None), "active", False):
            log_figure(trainer, data.plot(augmented=True), path.with_name("augmented.png"))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the validation before."""
        self._confusion, self._worst = None, []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the validation."""
        self._confusion, self._worst = None, []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects what the figures of the validation need."""
        self._collect(outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects what the figures of the test need."""
        self._collect(outputs, batch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves, and the figures of the last validation."""
        self._draw(trainer, "val", f"validation, epoch {trainer.current_epoch}")
        if trainer.is_global_zero:
            history = read_history(self.folder / METRICS, PAIRS)
            if history:
                log_figure(trainer, plots.curves(history), self.folder / "figures" / "curves.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the test."""
        self._draw(trainer, "test", "test")

    def _collect(self, outputs: Any, batch: Any) -> None:
        if not isinstance(outputs, dict) or not {"logits", "labels"} <= outputs.keys():
            return
        logits, labels = outputs["logits"], outputs["labels"]
        if self._confusion is None:
            self._confusion = MulticlassConfusionMatrix(logits.shape[1]).to(logits.device)
        self._confusion.update(logits, labels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        found = [losses, batch[0], labels, logits.argmax(1)]
        if self._worst:
            found = [torch.cat(pair) for pair in zip(self._worst, found, strict=True)]
        top = found[0].topk(min(WORST, len(found[0]))).indices
        self._worst = [part[top] for part in found]

    def _draw(self, trainer: Trainer, stage: str, title: str) -> None:
        if self._confusion is None:
            return
        counts = self._confusion.compute()  # all processes take part
        if trainer.is_global_zero:
            data = trainer.datamodule  # type: ignore[attr-defined]
            names = getattr(data, "class_names", None) or [str(number) for number in range(len(counts))]
            matrix = plots.confusion_matrix(counts, names, f"{title}: {int(counts.sum()):,} images")
            log_figure(trainer, matrix, self.folder / "figures" / f"{stage}_confusion.png")
            preprocessing = getattr(data, "preprocessing", None)
            losses, images, labels, predictions = self._worst
            if preprocessing is not None:
                titles = [
                    f"{names[true]}, taken for\n{names[guess]} (loss {loss:.1f})"
                    for loss, true, guess in zip(losses.tolist(), labels.tolist(), predictions.tolist(), strict=True)
                ]
                grid = plots.image_grid(preprocessing.unscale(images.float()), titles)
                log_figure(trainer, grid, self.folder / "figures" / f"{stage}_worst.png")
        self._confusion = None
