"""One fold of a walk-forward: an ordinary training in a folder of its own, and its predictions."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from lightning_cnn.commands import train
from lightning_cnn.commands.log_file import printing_to
from lightning_cnn.commands.report import BASELINES, PREDICTIONS
from lightning_cnn.commands.return_predictions import predict_test
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.month_split import Fold
from lightning_cnn.resume.files import make_folder
from lightning_cnn.tracking.loggers import HPARAMS
from lightning_cnn.tracking.run import RECORD, Run

LOG = "log.txt"


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

    def finished(self) -> Run | None:
        """The finished run of the fold with its predictions, None where it is still to be trained."""
        for record in self.folder.glob(f"*/{RECORD}"):
            whole = all((record.parent / name).is_file() for name in (PREDICTIONS, BASELINES))
            if whole and (run := Run.open(record.parent)).status == "finished":
                return run
        return None


def train_fold(job: FoldJob) -> Run:
    """Trains and tests a fold, and predicts its test months; what it prints goes to `log.txt`.

    It computes with one CPU thread, so that the result does not depend on how many folds are trained at once. What an
    interrupted training left behind is removed first.

    Returns:
        The run of the fold.

    Raises:
        UserError: If the training can't be done.
    """
    shutil.rmtree(job.folder, ignore_errors=True)
    make_folder(job.folder)
    fold = job.fold
    months = {"train_start": fold.train_start, "train_end": fold.train_end}
    months |= {"test_start": fold.test_start, "test_end": fold.test_end}
    words = ["--config", str(job.config), "--runs_dir", str(job.folder.parent), "--experiment", job.folder.name]
    words += [word for name, month in months.items() for word in (f"--data.{name}", str(month))]
    with printing_to(job.folder / LOG), _one_thread():
        try:
            train.main("train", words)
            (record,) = job.folder.glob(f"*/{RECORD}")
            predict_test(Run.open(record.parent), job.embargo)
        except UserError as error:  # or one of its kinds
            raise type(error)(f"fold {fold.name}: {error}") from None
    for table in record.parent.glob(f"events.out.tfevents.*{HPARAMS}"):
        table.unlink()  # in the dashboard's table of settings the walk-forward stands as one run
    return Run.open(record.parent)


def start_worker() -> None:
    """Prepares a process that trains folds: it leaves Ctrl-C to its parent, and ends when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
