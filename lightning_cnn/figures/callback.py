"""The figures of a run, in its folder and in the loggers, and its tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cnn.figures.collected import IMAGES, Collected, Table
from lightning_cnn.figures.images import curves

CURVES = ("loss", "acc")  # beside what the module shows in the progress bar
ANSWERS = "validation_answers"  # what last.ckpt holds of them
Write = Callable[[Trainer, Figure, Path], None]
WriteTable = Callable[[Table, Path], None]
History = Callable[[Sequence[str]], dict[str, list[tuple[float, float]]]]


class Best(Protocol):
    """What writes `best.ckpt`."""

    best_epoch: int
    best_model_path: str


class Last(Protocol):
    """What writes `last.ckpt`."""

    @property
    def file(self) -> Path:
        """The checkpoint."""

    @property
    def is_saving(self) -> bool:
        """Whether the checkpoint that is being made is this one."""


class Figures(Callback):
    """Examples at the start; curves, and what the last validation and the test answered, at the end.

    The module says in `keep` what is kept of the answers of its validation and test steps, and its `figures` draws
    that; without `keep` nothing is drawn. `last.ckpt` holds what is kept of the last validation, so that a run that
    goes on behind it draws the same figures. `best.ckpt` holds none.

    Args:
        folder: The folder of the figures; that of the tables is `tables`, beside it.
        write: Writes a figure to a PNG file and sends it to the loggers of a trainer.
        write_table: Writes a table to a CSV file.
        history: Reads the points of metrics, epoch and value, by name; None draws no curves.
        last: Writes `last.ckpt`; None where nothing is trained.
        best: Writes `best.ckpt`; None where nothing is trained.
    """

    def __init__(
        self,
        folder: Path,
        write: Write,
        write_table: WriteTable,
        history: History | None = None,
        last: Last | None = None,
        best: Best | None = None,
    ) -> None:
        self.folder = folder
        self.write = write
        self.write_table = write_table
        self.history = history
        self.last = last
        self.best = best
        self._answers: Collected | None = None  # of the validation or the test that runs
        self._validated: Collected | None = None  # of the last validation
        self._epoch = 0  # in which it was

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes figures of training images with their classes, before and after augmentation."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "plot") or not trainer.is_global_zero:
            return
        augments = getattr(getattr(data, "augmentation", None), "active", False)
        for name in ("examples", "augmented") if augments else ("examples",):
            path = self.folder / f"{name}.png"
            if not path.exists():  # a resumed run has drawn it
                self.write(trainer, data.plot(augmented=True) if name == "augmented" else data.plot(), path)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins anew."""
        self._answers = None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Collects what the figures need."""
        keep = getattr(pl_module, "keep", None)
        if not keep or not isinstance(outputs, dict):
            return
        if self._answers is None:
            self._answers = Collected(keep)
        self._answers.add({IMAGES: batch[0], **outputs})

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the answers of a whole validation."""
        if self._answers is not None and not trainer.sanity_checking:
            self._answers.gather()  # all processes take part
            self._validated, self._epoch = self._answers, trainer.current_epoch
        self._answers = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the last validation."""
        self._draw_validation(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the curves; also where a run goes on of which only the test was left, then with the validation."""
        self._draw_validation(trainer, pl_module)
        names = dict.fromkeys((*CURVES, *getattr(pl_module, "shown", ())))
        pairs = [f"{stage}/{name}" for name in names for stage in ("train", "val")]
        history = self.history(pairs) if trainer.is_global_zero and self.history is not None else {}
        if history:
            best = self.best.best_epoch if self.best is not None and self.best.best_model_path else None
            self.write(trainer, curves(history, best), self.folder / "curves.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the test."""
        if self._answers is not None:
            self._answers.gather()  # all processes take part
            self._draw(trainer, pl_module, self._answers, "test", "test")
        self._answers = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the answers of the last validation to `last.ckpt`."""
        if self._validated is not None and self.last is not None and self.last.is_saving:
            checkpoint[ANSWERS] = {"epoch": self._epoch, "kept": self._validated.kept}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes up the answers of the last validation, where the run itself goes on: it has its `last.ckpt`."""
        saved = checkpoint.get(ANSWERS, {})
        # those of version 0.1 are in another form
        if "kept" in saved and self.last is not None and self.last.file.is_file():
            self._validated = Collected({})
            self._validated.kept, self._epoch = saved["kept"], saved["epoch"]

    def _draw_validation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validated is not None:
            self._draw(trainer, pl_module, self._validated, "val", f"validation, epoch {self._epoch}")
        self._validated = None

    def _draw(self, trainer: Trainer, pl_module: LightningModule, answers: Collected, stage: str, title: str) -> None:
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        preprocessing = getattr(data, "preprocessing", None)
        kept = {}
        for name, rows in answers.kept.items():
            kept[name] = dict(rows)
            images = kept[name].pop(IMAGES, None)
            if images is not None and preprocessing is not None:
                if isinstance(images, Tensor):
                    kept[name][IMAGES] = preprocessing.unscale(images.float())
                else:  # of different sizes
                    kept[name][IMAGES] = [preprocessing.unscale(image.float()) for image in images]
        for name, figure in pl_module.figures(kept, data, title):  # type: ignore[operator]
            self.write(trainer, figure, self.folder / f"{stage}_{name}.png")
        for name, table in pl_module.tables(kept, data):  # type: ignore[operator]
            self.write_table(table, self.folder.parent / "tables" / f"{stage}_{name}.csv")
