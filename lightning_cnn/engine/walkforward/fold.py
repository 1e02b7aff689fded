"""One fold of a walk-forward: an ordinary training in a folder of its own, and its predictions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import TRAIN
from lightning_cnn.engine import fit
from lightning_cnn.engine.return_predictions import predict_test
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.month_split import Fold
from lightning_cnn.resume.files import make_folder
from lightning_cnn.resume.signals import deferring_signals, stopping_at_once
from lightning_cnn.resume.workers import printing_to
from lightning_cnn.tracking.loggers import HPARAMS
from lightning_cnn.tracking.record import BASELINES, PREDICTIONS, new_folder
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import iter_runs

LOG = "log.txt"
MONTHS = ("train_start", "train_end", "test_start", "test_end")  # of the data, set for each fold


def months_of(fold: Fold) -> dict[str, str]:
    """The months of a fold as options of the data."""
    return {name: str(getattr(fold, name)) for name in MONTHS}


@dataclass(frozen=True)
class FoldJob:
    """What a process needs to know to train a fold.

    Attributes:
        folder: The folder of the fold, `PARENT/folds/FOLD`.
        config: The configuration that all folds share.
        fold: Its months.
        embargo: Months that must lie between training and test.
    """

    folder: Path
    config: Path
    fold: Fold
    embargo: int

    def finished(self) -> RunFolder | None:
        """The finished run of the fold with its predictions, None where it is still to be trained."""
        for run in self._runs():
            whole = all((run.folder / name).is_file() for name in (PREDICTIONS, BASELINES))
            if whole and run.status == "finished":
                return run
        return None

    def run_folder(self) -> Path:
        """Where the fold is trained: in the folder of a run that was interrupted, or in a new one."""
        begun = [run.folder for run in self._runs() if run.status != "failed"]
        return begun[-1] if begun else new_folder(self.folder.parent, self.folder.name)

    def _runs(self) -> list[RunFolder]:
        return list(iter_runs(self.folder.parent, name=self.folder.name))


def train_fold(job: FoldJob) -> Path:
    """Trains and tests a fold, and predicts its test months; what it prints goes to `log.txt`.

    It computes with one CPU thread, so that the result does not depend on how many folds are trained at once. An
    interrupted training goes on; a failed one stays as it is, beside the new one.

    Returns:
        The run folder of the fold.

    Raises:
        UserError: If the training can't be done.
        Interrupted: If this process is told to stop.
    """
    make_folder(job.folder)
    fields = {"runs_dir": str(job.folder.parent), "experiment": job.folder.name}
    fields |= {f"data.{name}": month for name, month in months_of(job.fold).items()}
    folder = job.run_folder()
    with deferring_signals(), stopping_at_once(), printing_to(job.folder / LOG), _one_thread():
        try:
            config = Config.load(job.config, fields, kind=TRAIN)
            fit.train(config, folder=folder)
            run = RunFolder.open(folder)
            for name, value in run.record.metrics.items():
                print(f"{name} {value:.4f}")
            predict_test(run, job.embargo)
        except UserError as error:
            raise type(error)(f"fold {job.fold.name}: {error}") from None
    for table in folder.glob(f"events.out.tfevents.*{HPARAMS}"):
        table.unlink()  # in the dashboard's table of settings the walk-forward stands as one run
    return folder


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
