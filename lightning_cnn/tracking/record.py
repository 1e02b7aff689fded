"""The record of a run, `run.json`, and the names in its folder. Imports neither torch nor Lightning."""

import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from lightning_cnn.evaluation.directions import Direction
from lightning_cnn.plain_text import folder_from
from lightning_cnn.resume.run_lock import RUN_FOLDER

# `damaged` stands in no record: it is the status of a run whose record can't be read
Status = Literal["running", "finished", "pruned", "failed", "interrupted", "damaged"]
RECORD = "run.json"
CONFIG = "config.yaml"
SWEEP = "sweep"  # folder of a sweep, within that of its experiment, beside its runs
METRICS = "metrics.csv"
PREDICTIONS, BASELINES = "predictions.parquet", "baselines.parquet"  # of runs on returns
FORMAT = 2  # of the record; `upgrades.py` reads earlier ones
OFFLINE = "wandb/offline-run-*"  # parts that were recorded for W&B without a server
NEW_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")  # what `new_folder` calls a run
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
        id: Name that the run folder was made with, also the id and name of the W&B run.
        name: Name that the experiment had then, the group of the W&B run.
        status: running, finished, pruned (a trial of a sweep that was not worth going on), failed or interrupted.
        start: Start in UTC, ISO 8601.
        end: End in UTC, ISO 8601; None while it runs.
        paused: Seconds between the interruptions of the run and its resumptions, by the clock of the machine: less than
            0 where that was set back.
        command: The command line, as typed.
        directory: Working directory of the command, from which relative paths in `config.yaml` lead.
        git_commit: Commit of the working directory, with `+changes` where files differ from it.
        versions: Python and package versions.
        device: What it trains on, such as `cpu` or `2 x NVIDIA H200`.
        seed: The seed of every random draw.
        tags: Tags that the training was given; `labels.json` has those that the run has now.
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
    directory: str = ""
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    seed: int | bool | None = None
    tags: list[str] = field(default_factory=list)
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
        """Seconds from start to end, or until now while it runs, without the pauses."""
        end = datetime.fromisoformat(self.end) if self.end else datetime.now(UTC)
        return max(0.0, (end - datetime.fromisoformat(self.start)).total_seconds() - self.paused)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "RunRecord":
        """The record that a `run.json` holds.

        Args:
            content: What the file holds. Entries of later versions are skipped.

        Raises:
            TypeError: If an entry is missing, or is not of its type.
        """
        checkers = _checkers()
        values = {name: value for name, value in content.items() if name in checkers}
        for name in ("metrics", "last"):  # null: not a number
            if isinstance(part := values.get(name), dict):
                values[name] = {metric: math.nan if value is None else value for metric, value in part.items()}
        if isinstance(best := values.get("best"), dict) and "value" in best and best["value"] is None:
            values["best"] = best | {"value": math.nan}
        best = values.get("best")
        parts = [(f"best.{part}", best.get(part)) for part in BEST] if isinstance(best, dict) else []
        for name, value in [*values.items(), *parts]:
            if not checkers[name](value):
                raise TypeError(f"unexpected {name} {value!r:.40}")
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """The record as JSON has it, without NaN and infinity."""
        plain: dict[str, Any] = finite(asdict(self))
        return plain


BEST = {"metric": str | None, "value": float | None, "epoch": int | None}  # of `best`, where there is one


def finite(value: Any) -> Any:
    """Plain data with None for each NaN and infinity, which JSON does not know.

    Args:
        value: Numbers, texts, lists and dicts.
    """
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _checkers() -> dict[str, Callable[[Any], bool]]:
    """What checks the value of each field, and of each part of `best`."""
    kinds = {each.name: each.type for each in fields(RunRecord)} | {f"best.{part}": kind for part, kind in BEST.items()}
    return {name: _checker(kind) for name, kind in kinds.items()}  # type: ignore[arg-type]


@cache
def _checker(kind: Any) -> Callable[[Any], bool]:
    """What says whether a value from a JSON file is of a type. Numbers that no machine computes with are of none."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: True
    if origin is Literal:
        return lambda value: value in arguments
    if origin in (Union, UnionType):
        checkers = [*map(_checker, arguments)]
        return lambda value: any(check(value) for check in checkers)
    if origin in (dict, list):
        inner = _checker(arguments[-1])
        values = dict.values if origin is dict else iter
        return lambda value: isinstance(value, origin) and all(map(inner, values(value)))
    if kind is int:
        return lambda value: type(value) is int and abs(value) < 2**63
    if kind is float:
        return lambda value: type(value) is float or (type(value) is int and abs(value) < 2**63)
    return lambda value: isinstance(value, kind)


def new_folder(runs_dir: Path, name: str) -> Path:
    """The path of a new run folder, `<runs_dir>/<name>/<date>-<time>-<four letters>`; it is not made.

    Args:
        runs_dir: The folder of all runs.
        name: Name of the experiment.
    """
    return runs_dir / name / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
