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
SAMPLE = 32  # predictions shown, right and wrong ones
PAIRS = [f"{stage}/{name}" for name in ("loss", "acc") for stage in ("train", "val")]


class Figures(Callback):
    """Examples at the start; curves, confusion matrix, some predictions and the worst ones at the end.

    It works with every module whose validation and test steps return `logits` `(batch, classes)` and `labels`
    `(batch,)`. Worst examples are those with the largest loss that rank zero has seen.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._confusion: MulticlassConfusionMatrix | None = None
        self._worst: list[Tensor] = []
        self._sample: list[Tensor] = []
        self._draws = torch.Generator()

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
        self._forget()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the validation."""
        self._forget()

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

    def _forget(self) -> None:
        self._confusion, self._worst, self._sample = None, [], []
        self._draws.manual_seed(0)  # the same images each time, so that runs can be compared

    def _collect(self, outputs: Any, batch: Any) -> None:
        if not isinstance(outputs, dict) or not {"logits", "labels"} <= outputs.keys():
            return
        logits, labels = outputs["logits"], outputs["labels"]
        if self._confusion is None:
            self._confusion = MulticlassConfusionMatrix(logits.shape[1]).to(logits.device)
        self._confusion.update(logits, labels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        found = [batch[0], labels, logits.argmax(1), losses]
        self._worst = _highest(losses, found, self._worst, WORST)
        lots = torch.rand(len(losses), generator=self._draws).to(losses.device)
        self._sample = _highest(lots, found, self._sample, SAMPLE)

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
            if preprocessing is not None:
                _, images, labels, predictions, losses = self._worst
                titles = [
                    f"{names[true]}, taken for\n{names[guess]} (loss {loss:.1f})"
                    for loss, true, guess in zip(losses.tolist(), labels.tolist(), predictions.tolist(), strict=True)
                ]
                grid = plots.image_grid(preprocessing.unscale(images.float()), titles)
                log_figure(trainer, grid, self.folder / "figures" / f"{stage}_worst.png")
                _, images, labels, predictions, _ = self._sample
                titles = [
                    f"\u2713 {names[true]}" if true == guess else f"\u2717 {names[guess]},\nis {names[true]}"
                    for true, guess in zip(labels.tolist(), predictions.tolist(), strict=True)
                ]
                grid = plots.image_grid(preprocessing.unscale(images.float()), titles, columns=8)
                log_figure(trainer, grid, self.folder / "figures" / f"{stage}_predictions.png")
        self._confusion = None


def _highest(scores: Tensor, found: list[Tensor], kept: list[Tensor], count: int) -> list[Tensor]:
    """The rows with the highest scores, among those that were kept before and those found now; the scores first."""
    rows = [scores, *found]
    if kept:
        rows = [torch.cat(pair) for pair in zip(kept, rows, strict=True)]
    top = rows[0].topk(min(count, len(rows[0]))).indices
    return [part[top] for part in rows]
