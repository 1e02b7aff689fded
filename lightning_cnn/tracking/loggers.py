"""The loggers of a run: metrics.csv, TensorBoard and W&B."""

import csv
import io
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lightning_cnn.errors import StorageError
from lightning_cnn.evaluation.directions import Direction
from lightning_cnn.figures.style import encode
from lightning_cnn.resume.files import make_folder, replace_bytes, replace_text, storing
from lightning_cnn.resume.signals import received
from lightning_cnn.tracking.history import Points

EVENTS = "events.out.tfevents.*"
HPARAMS = ".hparams"  # end of the name of the event file with the HParams

# the settings in TensorBoard's HParams table; config.yaml has all
SHOWN = ("model.", "data", "seed_everything", "trainer.max_epochs", "trainer.precision", "trainer.gradient_clip_val")


class MetricsCSV(Logger):
    """Every logged scalar in one CSV: columns epoch, step and the metrics, one row a step.

    The file is always whole: each save replaces it. Lightning's `CSVLogger` deletes the file of the run that it
    continues, so it can't be used here.

    Args:
        path: The file.
        last_step: Where a run continues: only rows of the file before this step are kept; None starts anew.
    """

    name = "csv"
    version = ""  # the run folder is the version

    def __init__(self, path: Path, last_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if last_step is not None and path.is_file():
            with path.open(newline="") as file:
                rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
            self.rows = [row for row in rows if int(row["step"]) < last_step]
        self._kept = len(self.rows)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: `config.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds values to the row of their step."""
        # a run that goes on from best.ckpt repeats the validation of the last row that it kept
        new = len(self.rows) > self._kept and set(self.rows[-1]) & set(metrics) - {"epoch"}
        if not self.rows or int(self.rows[-1]["step"]) != step or new:
            self.rows.append({"step": step or 0})
        self.rows[-1].update({name: int(value) if name == "epoch" else float(value) for name, value in metrics.items()})

    @rank_zero_only
    def save(self) -> None:
        """Writes the file anew in one step."""
        names = sorted(set().union(*self.rows) - {"epoch", "step"}) if self.rows else []
        text = io.StringIO()
        writer = csv.DictWriter(text, ["epoch", "step", *names])
        writer.writeheader()
        writer.writerows(self.rows)
        replace_text(self.path, text.getvalue(), sync=False)  # it is written again and again

    def finalize(self, status: str) -> None:
        """Writes what is left; of a training that fails only where that is possible."""
        with suppress(StorageError) if status == "failed" else nullcontext():
            self.save()


class RunTensorBoard(TensorBoardLogger):
    """TensorBoard's event files directly in the run folder, so that runs are called `<experiment>/<run id>`.

    What it takes from Lightning's does nothing in other processes than the first.

    Args:
        folder: The run folder.
        last_step: Where a run continues: what was logged at this step and later is hidden; None starts anew.
    """

    def __init__(self, folder: Path, last_step: int | None = None) -> None:
        super().__init__(save_dir=str(folder), name="", version="", default_hp_metric=False, purge_step=last_step)
        self._files = folder / EVENTS
        threading.excepthook = _once

    @property
    def experiment(self) -> Any:
        """The writer."""
        with storing(self._files):
            return super().experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes metrics of a step."""
        with storing(self._files):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_figure(self, name: str, figure: Figure, path: Path, step: int) -> None:
        """Writes a figure.

        Args:
            name: Its tag.
            figure: The figure.
            path: Its PNG file, which is sent as it is: `add_image` would compress it a second time.
            step: Optimizer steps before it.
        """
        width, height = figure.canvas.get_width_height()
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=path.read_bytes())
        with storing(self._files):
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            self.experiment._get_file_writer().add_summary(summary, step)

    def save(self) -> None:
        """Flushes; Lightning's own would write a second copy of the configuration."""
        with storing(self._files):
            self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Closes the file; of a training that fails only where that is possible."""
        with suppress(StorageError) if status == "failed" else nullcontext(), storing(self._files):
            super().finalize(status)


def _once(failure: threading.ExceptHookArgs) -> None:
    """Says what failed in a thread, but for TensorBoard's: whoever writes to it next gets the same error."""
    if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(failure)


@contextmanager
def wandb_may_be_gone() -> Iterator[None]:
    """Overlooks that W&B does not answer, where a signal has told the training to stop.

    Slurm sends the signal to all processes of a job, and SIGTERM ends W&B's own process. metrics.csv has what is
    missing there, which are the last seconds.
    """
    try:
        yield
    except OSError:
        time.sleep(1)  # this process may get it a moment later
        if not received():
            raise


class RunWandb(WandbLogger):
    """Lightning's logger of W&B; a training that has been told to stop does so without W&B, too."""

    log_metrics = wandb_may_be_gone()(WandbLogger.log_metrics)

    @wandb_may_be_gone()
    def log_figure(self, name: str, figure: Figure, path: Path, step: int) -> None:
        """Sends the PNG file of a figure; arguments as of `RunTensorBoard.log_figure`."""
        self.log_image(name, [str(path)], step=step)


def log_settings(
    loggers: list[Logger], settings: dict[str, Any], metrics: dict[str, float], best: dict[str, Any] | None = None
) -> None:
    """Hands the flat configuration and the metrics of the best checkpoint to TensorBoard's HParams table.

    Lightning's `log_hyperparams` would log all metrics once more, at step 0 of their curves, and TensorBoard would keep
    the settings of the first part of a resumed run.

    Args:
        loggers: Those of TensorBoard among them get it.
        settings: The flat configuration; what was left at None is left out, as it fills the table with nothing.
        metrics: The metrics. The table shows the last values of curves: of a metric whose curve goes on behind the best
            checkpoint, such as `val/acc`, the value is logged as `best/val/acc`.
        best: `epoch` of the best checkpoint; empty where there is none.
    """
    made = {name: value for name, value in settings.items() if value is not None and name.startswith(SHOWN)}
    of_best = {f"best/{name}": value for name, value in metrics.items() if best and not name.startswith("test")}
    names = [*(name for name in metrics if f"best/{name}" not in of_best), *of_best]
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger) and metrics:
            for name, value in of_best.items():
                logger.experiment.add_scalar(name, value, best["epoch"] if best else 0)
            logger.save()
            for earlier in Path(logger.log_dir).glob(EVENTS + HPARAMS):
                earlier.unlink()
            with SummaryWriter(logger.log_dir, filename_suffix=HPARAMS) as writer:
                for part in hparams(made, dict.fromkeys(names)):
                    writer.file_writer.add_summary(part)


def log_best(
    loggers: list[Logger], curves: dict[str, Points], modes: Mapping[str, Direction], metrics: dict[str, float]
) -> None:
    """Puts best and last value of metrics into W&B's summary; of itself it knows only the part after a resume.

    Args:
        loggers: Those of W&B among them get it.
        curves: All points of each metric.
        modes: `min` or `max` for each metric.
        metrics: All metrics of the best checkpoint, which become `best/<metric>`.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, points in curves.items():
                values = [value for _, value in points]
                best = min(values) if modes[name] == "min" else max(values)
                with wandb_may_be_gone():
                    logger.experiment.summary[name] = {modes[name]: best, "last": values[-1]}
            with wandb_may_be_gone():
                logger.experiment.summary.update({f"best/{name}": value for name, value in metrics.items()})


def log_figure(trainer: Trainer, figure: Figure, path: Path) -> None:
    """Saves a figure as PNG and hands it to the loggers that have `log_figure`; on rank zero only.

    Args:
        trainer: Its loggers get the figure, under `figures/<name of the file>`.
        figure: The figure.
        path: The PNG file.
    """
    make_folder(path.parent, parents=False)
    replace_bytes(path, encode(figure))
    for logger in trainer.loggers:
        if hasattr(logger, "log_figure"):
            logger.log_figure(f"figures/{path.stem}", figure, path, trainer.global_step)
