"""The pictures of a run, in `figures/` and in the loggers."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.figures import plots
from lightning_cnn.figures.classification import ClassFigures
from lightning_cnn.figures.detection import DetectionFigures
from lightning_cnn.figures.house_numbers import NumberFigures
from lightning_cnn.figures.returns import ReturnFigures
from lightning_cnn.resume.last_checkpoint import NAME, LastCheckpoint
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.loggers import log_figure
from lightning_cnn.tracking.run import METRICS

PAIRS = [f"{stage}/{name}" for name in ("loss", "acc", "auc", "ic") for stage in ("train", "val")]


# what draws the answers of a module: the first whose `needs` its validation and test steps return
KINDS = (ClassFigures, NumberFigures, DetectionFigures, ReturnFigures)
ANSWERS = "validation_answers"  # what last.ckpt holds of them
Answers = ClassFigures | NumberFigures | DetectionFigures | ReturnFigures


class Figures(Callback):
    """Examples at the start; curves, and what the last validation and the test answered, at the end.

    What is drawn of the answers depends on what the module's validation and test steps return: `ClassFigures`,
    `NumberFigures`, `DetectionFigures`, `ReturnFigures`, or nothing. `last.ckpt` holds the answers of the last
    validation, so that a run that goes on behind it draws the same figures. `best.ckpt` holds none.

    Args:
        folder: The run folder.
        last: Writes `last.ckpt`; None where nothing is trained.
    """

    def __init__(self, folder: Path, last: LastCheckpoint | None = None) -> None:
        self.folder = folder
        self.last = last
        self._answers: Answers | None = None  # of the validation or the test that runs
        self._validated: Answers | None = None  # of the last validation
        self._epoch = 0  # in which it was

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws training images with their classes, and beside some of them what augmentation makes of them."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "plot") or not trainer.is_global_zero:
            return
        kinds = {"examples": False}
        if getattr(getattr(data, "augmentation", None), "active", False):
            kinds["augmented"] = True
        for name, augmented in kinds.items():
            path = self.folder / "figures" / f"{name}.png"
            if not path.exists():  # a resumed run has drawn it
                log_figure(trainer, data.plot(augmented=True) if augmented else data.plot(), path)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._answers = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the answers of a whole validation."""
        if self._answers is not None and not trainer.sanity_checking:
            self._answers.gather()  # all processes take part
            self._validated, self._epoch = self._answers, trainer.current_epoch
        self._answers = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the last validation."""
        self._draw_validation(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves; also where a run goes on of which only the test was left, then with the validation."""
        self._draw_validation(trainer)
        history = read_history(self.folder / METRICS, PAIRS) if trainer.is_global_zero else {}
        if history:
            log_figure(trainer, plots.curves(history), self.folder / "figures" / "curves.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the test."""
        if self._answers is not None:
            self._answers.gather()  # all processes take part
            self._draw(trainer, self._answers, "test", "test")
        self._answers = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the answers of the last validation to `last.ckpt`."""
        if self._validated is not None and self.last is not None and self.last.is_saving:
            content = {name: getattr(self._validated, name) for name in self._validated.drawn}
            kind = type(self._validated).__name__
            checkpoint[ANSWERS] = {"kind": kind, "epoch": self._epoch, "content": content}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes up the answers of the last validation, where the run itself goes on: it has its `last.ckpt`."""
        saved = checkpoint.get(ANSWERS)
        if saved is not None and self.last is not None and Path(self.last.dirpath, NAME).is_file():
            self._validated = next(kind for kind in KINDS if kind.__name__ == saved["kind"])()
            vars(self._validated).update(saved["content"])
            self._epoch = saved["epoch"]

    def _collect(self, outputs: Any, batch: Any) -> None:
        if not isinstance(outputs, dict):
            return
        if self._answers is None:
            self._answers = next((kind() for kind in KINDS if kind.needs <= outputs.keys()), None)
        if self._answers is not None:
            self._answers.add(outputs, batch[0])

    def _draw_validation(self, trainer: Trainer) -> None:
        if self._validated is not None:
            self._draw(trainer, self._validated, "val", f"validation, epoch {self._epoch}")
        self._validated = None

    def _draw(self, trainer: Trainer, answers: Answers, stage: str, title: str) -> None:
        if trainer.is_global_zero:
            for name, figure in answers.draw(trainer.datamodule, title):  # type: ignore[attr-defined]
                log_figure(trainer, figure, self.folder / "figures" / f"{stage}_{name}.png")
