"""What a walk-forward records of its folds: its record, its curves and its trackers."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lightning_cnn.config.config import Config
from lightning_cnn.resume.files import replacing
from lightning_cnn.tracking.loggers import MetricsCSV, RunTensorBoard, log_settings
from lightning_cnn.tracking.record import METRICS
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.wandb_run import start_wandb

SHOWN = ("test/auc", "test/ic", "test/acc", "test/up_rate")


def record_fold(parent: RunFolder, fold: RunFolder, count: str, name: str) -> None:
    """Adds a finished fold to the record of the walk-forward, and says so."""
    record = parent.record
    record.epochs += fold.record.epochs
    record.parameters, record.device = fold.record.parameters, fold.record.device
    parent.save()
    tested = fold.record.metrics
    numbers = [f"{key.removeprefix('test/')} {tested[key]:.4f}" for key in SHOWN if key in tested]
    print(f"{name}  {count}  {'  '.join(numbers)}  {fold.record.seconds:.0f} s", flush=True)


def track(config: Config, run: RunFolder, folds: Sequence[RunFolder]) -> None:
    """Hands the metrics of the folds, as curves over their number, and of the whole to CSV, TensorBoard and W&B.

    Args:
        config: The configuration.
        run: The walk-forward.
        folds: The runs of its folds, in order.
    """
    (run.folder / METRICS).unlink(missing_ok=True)  # a resumed walk-forward has all its folds, too
    for events in run.folder.glob("events.out.tfevents.*"):
        events.unlink()
    loggers = [MetricsCSV(run.folder / METRICS), RunTensorBoard(run.folder)]
    wandb_logger, note = start_wandb(run, config["wandb"], config["project"], config["tags"])
    if note:
        print(note)
    if wandb_logger is not None:
        wandb_logger.experiment.config.update(config.values, allow_val_change=True)
        loggers.append(wandb_logger)
    for number, fold in enumerate(folds):
        tested = {name: value for name, value in fold.record.metrics.items() if name.startswith("test/")}
        for logger in loggers:
            logger.log_metrics({f"fold/{name.removeprefix('test/')}": value for name, value in tested.items()}, number)
    for logger in loggers:
        logger.log_metrics(run.record.metrics, len(folds))
        logger.save()
    log_settings(loggers, config.flat(), run.record.metrics)
    run.save()


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes Parquet in one step: a reader sees the old file or the new one.

    Raises:
        StorageError: If it can't be written.
    """
    with replacing(path) as file:
        frame.to_parquet(file, index=False)
