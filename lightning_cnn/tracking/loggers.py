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
from lightning_cnn.figures.collected import Table
from lightning_cnn.figures.style import encode
from lightning_cnn.plain_text import csv_text
from lightning_cnn.resume.files import make_folder, replace_bytes, replace_text, storing
from lightning_cnn.resume.signals import received
from lightning_cnn.tracking.history import Points, read_rows

EVENTS = "events.out.tfevents.*"
HPARAMS = ".hparams"  # end of the name of the event file with the HParams

# the settings in TensorBoard's HParams table; config.yaml has all
SHOWN = ("model.", "data", "seed_everything", "trainer.max_epochs", "trainer.precision", "trainer.gradient_clip_val")


class MetricsCSV(Logger):
    """Every logged scalar in one CSV: columns epoch, step and the metrics, one row a step.

    Rows are appended; the last one may grow until the next begins. A new metric makes the file anew, in one step, with
    a column more. Lightning's `CSVLogger` deletes the file of the run that it continues, so it can't be used here.

    Args:
        path: The file.
        last_step: Where a run continues: only rows of the file before this step are kept; None starts anew.
    """

    name = version = ""  # the run folder is both: what others write by the names of a logger lies in it

    def __init__(self, path: Path, last_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._names: list[str] = []  # of the metrics that have a column
        self._start = self._end = -1  # bytes before and behind the last row; less than 0 before the file is written
        kept = [] if last_step is None or not path.is_file() else [*read_rows(path)]
        kept = [row for row in kept if row.get("step", "").isdecimal() and int(row["step"]) < (last_step or 0)]
        self._row: dict[str, Any] = kept.pop() if kept else {}
        self._earlier: list[dict[str, Any]] = kept
        self._is_kept = True  # the last row is one of those

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: `config.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds values to the row of their step."""
        # a run that goes on from best.ckpt repeats the validation of the last row that it kept
        new = not self._is_kept and set(self._row) & set(metrics) - {"epoch"}
        if not self._row or int(self._row["step"]) != step or new:
            if self._row:
                self.save()
                self._start = self._end
            self._row, self._is_kept = {"step": step or 0}, False
        self._row.update({name: int(value) if name == "epoch" else float(value) for name, value in metrics.items()})

    @rank_zero_only
    def save(self) -> None:
        """Writes the last row."""
        names = sorted({*self._names, *self._row} - {"epoch", "step"})
        if names == self._names and self.path.is_file() and self.path.stat().st_size == self._end:
            line = self._lines([self._row])
            with storing(self.path), self.path.open("r+b") as file:
                file.seek(self._start)
                file.write(line)
                file.truncate()
        else:
            if self._end < 0:
                rows, self._earlier = self._earlier, []
                names = sorted({*names, *(name for row in rows for name in row)} - {"epoch", "step"})
            else:
                rows = self._written()
            self._names = names
            begin, line = self._lines([{name: name for name in self._columns}, *rows]), self._lines([self._row])
            replace_bytes(self.path, begin + line, sync=False)
            self._start = len(begin)
        self._end = self._start + len(line)

    def _written(self) -> list[dict[str, Any]]:
        """The rows of the file before the last one; none where somebody has removed it."""
        if not self.path.is_file():
            return []
        with storing(self.path, verb="read"):
            text = self.path.read_bytes()[: self._start].decode(errors="replace")
        return [row for row in csv.DictReader(io.StringIO(text)) if row.keys() == {*self._columns}]

    @property
    def _columns(self) -> list[str]:
        return ["epoch", "step", *self._names]

    def _lines(self, rows: list[dict[str, Any]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self._columns).writerows(row for row in rows if row)
        return text.getvalue().encode()

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
        _date_back(folder)
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


def _date_back(folder: Path) -> None:
    """Names earlier event files such that TensorBoard, which reads them by their names, reads those to come last.

    The names begin with the time: the clock may have been set back since, or stand at the same second.
    """
    files, now = sorted(folder.glob(EVENTS)), int(time.time())
    for left, file in zip(range(len(files), 0, -1), files, strict=True):
        date, _, rest = file.name.removeprefix(EVENTS[:-1]).partition(".")
        if date.isdecimal() and int(date) > now - left:
            with storing(file):
                file.rename(folder / f"{EVENTS[:-1]}{now - left:010d}.{rest}")


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
            checkpoint, such as `val/acc`, the value is logged as `val_best/acc`.
        best: `epoch` of the best checkpoint; empty where there is none.
    """
    made = {name: value for name, value in settings.items() if value is not None and name.startswith(SHOWN)}
    best_names = {name: _best_name(name) for name in metrics if best and not name.startswith("test")}
    of_best = {best_names[name]: metrics[name] for name in best_names}
    names = [*(name for name in metrics if name not in best_names), *of_best]
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


def _best_name(name: str) -> str:
    """`val/acc` to `val_best/acc`: TensorBoard sorts by name, and single points should not come first."""
    group, slash, rest = name.partition("/")
    return f"{group}_best{slash}{rest}"


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


def save_table(table: Table, path: Path) -> None:
    """Writes a table as CSV, no cell of which a spreadsheet takes for a formula.

    Args:
        table: Names of the columns, and the rows.
        path: The file; its folder is made.
    """
    header, rows = table
    make_folder(path.parent, parents=False)
    replace_text(path, csv_text([header, *rows]))
