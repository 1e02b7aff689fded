"""The record of a run, `run.json`, and the names in its folder. Imports neither torch nor Lightning."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lightning_cnn.evaluation.directions import Direction
from lightning_cnn.plain_text import folder_from
from lightning_cnn.resume.run_lock import RUN_FOLDER

Status = Literal["running", "finished", "pruned", "failed", "interrupted"]
RECORD = "run.json"
CONFIG = "config.yaml"
SWEEP = "sweep"  # folder of a sweep, within that of its experiment, beside its runs
METRICS = "metrics.csv"
FORMAT = 2  # of the record; `upgrades.py` reads earlier ones
OFFLINE = "wandb/offline-run-*"  # parts that were recorded for W&B without a server
RUNS_DIR = "LIGHTNING_CNN_RUNS"  # variable with the folder of all runs


def default_runs_dir() -> Path:
    """`$LIGHTNING_CNN_RUNS`, or `runs/` in the working directory.

    Raises:
        UserError: If the variable holds a control character.
    """
    return folder_from(RUNS_DIR) or Path("runs")


def given_folder() -> Path | None:
    """The run folder that `$LIGHTNING_CNN_RUN` names, None where it names none.

    Raises:
        UserError: If the variable holds a control character.
    """
    return folder_from(RUN_FOLDER)


def unsent(folder: Path) -> list[Path]:
    """The offline parts in a run folder that have not been sent to W&B with `wandb sync`."""
    return [part for part in sorted(folder.glob(OFFLINE)) if not any(part.glob("*.synced"))]


@dataclass
class RunRecord:
    """What `run.json` holds.

    Attributes:
        id: Name of the run folder, also the id and name of the W&B run.
        name: Name of the experiment, the group of the W&B run.
        status: running, finished, pruned (a trial of a sweep that was not worth going on), failed or interrupted.
        start: Start in UTC, ISO 8601.
        end: End in UTC, ISO 8601; None while it runs.
        paused: Seconds between the interruptions of the run and its resumptions.
        command: The command line, as typed.
        git_commit: Commit of the working directory, with `+changes` where files differ from it.
        versions: Python and package versions.
        device: What it trains on, such as `cpu` or `2 x NVIDIA H200`.
        seed: The seed of every random draw.
        parameters: Number of parameters of the model.
        epochs: Finished training epochs.
        metrics: Metrics of the best checkpoint: in training (where it was the last of its epoch), validation and test.
            Without a best checkpoint those of the last one.
        last: Metrics of the last epoch, in training and validation.
        better: Which way each metric is better, `min` or `max`, by its name, that without its stage, or a pattern; null
            where no value is better than another. None in records of earlier versions.
        best: Best checkpoint: `metric`, `value`, `epoch`, `step` (steps of the optimizer before it), `checkpoint` (path
            inside the run folder).
        found: Settings that a finder has found, such as `model.lr`.
        data: What was found in the files of the data, and done about it, by name; empty of data that don't say.
        wandb: `id`, `mode` and `url` of the W&B run.
        error: Why the run failed or was pruned, one line.
        pid: Process that runs it, on `host`.
        host: Machine that runs it.
        job: Number of the Slurm job that runs it, empty outside of Slurm.
        format: Version of this record; those of version 0.1 have none.
    """

    id: str
    name: str
    status: Status = "running"
    start: str = ""
    end: str | None = None
    paused: float = 0.0
    command: str = ""
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    seed: int | None = None
    parameters: int | None = None
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    better: dict[str, Direction | None] | None = None
    best: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    wandb: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    pid: int | None = None
    host: str = ""
    job: str = ""
    format: int = FORMAT

    @property
    def seconds(self) -> float:
        """Wall-clock seconds from start to end, or until now while it runs, without the pauses."""
        end = datetime.fromisoformat(self.end) if self.end else datetime.now(UTC)
        return (end - datetime.fromisoformat(self.start)).total_seconds() - self.paused


def new_folder(runs_dir: Path, name: str) -> Path:
    """The path of a new run folder, `<runs_dir>/<name>/<date>-<time>-<four letters>`; it is not made.

    Args:
        runs_dir: The folder of all runs.
        name: Name of the experiment.
    """
    return runs_dir / name / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
