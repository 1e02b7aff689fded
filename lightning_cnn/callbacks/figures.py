"""The pictures of a run, in `figures/` and in the loggers."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn import plots
from lightning_cnn.callbacks.class_figures import ClassFigures
from lightning_cnn.callbacks.detection_figures import DetectionFigures
from lightning_cnn.callbacks.number_figures import NumberFigures
from lightning_cnn.callbacks.return_figures import ReturnFigures
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.loggers import log_figure
from lightning_cnn.tracking.run import METRICS

PAIRS = [f"{stage}/{name}" for name in ("loss", "acc", "auc", "ic") for stage in ("train", "val")]


# what draws the answers of a module: the first whose `needs` its validation and test steps return
KINDS = (ClassFigures, NumberFigures, DetectionFigures, ReturnFigures)


class Figures(Callback):
    """Examples at the start; curves, and what the validation and the test answered, at the end.

    What is drawn of the answers depends on what the module's validation and test steps return: `ClassFigures`,
    `NumberFigures`, `DetectionFigures`, `ReturnFigures`, or nothing.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._answers: ClassFigures | NumberFigures | DetectionFigures | ReturnFigures | None = None

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
        self._answers = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the validation."""
        self._answers = None

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
        """Draws the figures of the last validation."""
        self._draw(trainer, "val", f"validation, epoch {trainer.current_epoch}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves; also where a run goes on of which only the test was left."""
        history = read_history(self.folder / METRICS, PAIRS) if trainer.is_global_zero else {}
        if history:
            log_figure(trainer, plots.curves(history), self.folder / "figures" / "curves.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the test."""
        self._draw(trainer, "test", "test")

    def _collect(self, outputs: Any, batch: Any) -> None:
        if not isinstance(outputs, dict):
            return
        if self._answers is None:
            self._answers = next((kind() for kind in KINDS if kind.needs <= outputs.keys()), None)
        if self._answers is not None:
            self._answers.add(outputs, batch[0])

    def _draw(self, trainer: Trainer, stage: str, title: str) -> None:
        if self._answers is None:
            return
        self._answers.gather()  # all processes take part
        if trainer.is_global_zero:
            for name, figure in self._answers.draw(trainer.datamodule, title):  # type: ignore[attr-defined]
                log_figure(trainer, figure, self.folder / "figures" / f"{stage}_{name}.png")
        self._answers = None
