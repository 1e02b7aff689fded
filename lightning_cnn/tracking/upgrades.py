"""What version 0.1 wrote, as this version writes it. Nothing else knows the old names and forms. Imports no torch."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from lightning_cnn.resume.heartbeat import TIMEOUT_SECONDS, Holder, file_system_time
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.record import FORMAT, METRICS, RECORD, RunRecord

PACKAGE = "lightning_cnn"
PUBLIC = ("modules", "datamodules")  # rooms whose classes are named without their file
CALLBACKS = {
    "BatchSizeFinder": "engine.finders.batch_size",
    "BestCheckpoint": "resume.checkpoints",
    "Figures": "figures.callback",
    "FiniteLoss": "engine.finite_loss",
    "FineTuning": "modules.fine_tuning",
    "LastCheckpoint": "resume.last_checkpoint",
    "LearningRateFinder": "engine.finders.learning_rate",
    "Monitors": "tracking.monitors",
    "Preemption": "resume.preemption",
    "ProgressBar": "tracking.progress",
    "Pruning": "engine.pruning",
    "ResumedEpoch": "resume.lightning_loops",
    "StepSeed": "resume.step_seed",
    "Throughput": "tracking.throughput",
}
NAMES = ("class_path", "_class_path")  # keys with the path of a class
RENAMED = {"Vitals": "Throughput"}
FIELDS = {("ImageTable", "table"): "labels"}  # renamed fields, by class and former name
REMOVED = ("steps_per_call",)  # options of the model that this version does without
VALUES = {("recipe", "honest"): "point_in_time"}  # by the name of the field


def upgraded_record(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """A record as this version writes it.

    Version 0.1 recorded the metrics of the best checkpoint and those of the last epoch as one.

    Args:
        folder: The run folder.
        content: What `run.json` holds.
    """
    best, metrics = content.get("best"), content.get("metrics")
    if best and metrics and "last" not in content:
        tested = {name: value for name, value in metrics.items() if name.startswith("test/")}
        last = {name: value for name, value in metrics.items() if name not in tested}
        curves = read_history(folder / METRICS, [*last])
        of_best = {name: [value for at, value in points if at == best.get("epoch")] for name, points in curves.items()}
        content = content | {"last": last}
        if any(of_best.values()):
            content["metrics"] = {name: values[-1] for name, values in of_best.items() if values} | tested
    return content | {"format": FORMAT}


def holder_by_record(folder: Path, record: RunRecord) -> Holder | None:
    """Who trains a run of a version that had no locks, by the process in its record; None where nobody does.

    Args:
        folder: The run folder.
        record: Its record.
    """
    holder = Holder(record.pid or 0, record.host)
    if record.status != "running" or record.pid is None:
        return None
    try:
        age = file_system_time(folder) - (folder / RECORD).stat().st_mtime
        if record.host != socket.gethostname():
            again = bool(record.job) and record.job == os.environ.get("SLURM_JOB_ID")
            return holder if age <= TIMEOUT_SECONDS and not again else None
        process = psutil.Process(record.pid)
        # a process younger than the record (2 s for clocks that differ) is another one with the same number
        gone = process.status() == psutil.STATUS_ZOMBIE or time.time() - process.create_time() < age - 2
    except psutil.AccessDenied:
        gone = False
    except (psutil.NoSuchProcess, OSError):
        gone = True
    return None if gone else holder


def class_path(name: str) -> str:
    """The present path of a class that a configuration or a checkpoint names.

    Args:
        name: Its dotted name, such as `lightning_cnn.modules.image_classifier.ImageClassifier`.
    """
    parts = name.split(".")
    room, kind = ".".join(parts[:2]), parts[-1]
    if room == f"{PACKAGE}.callbacks":
        kind = RENAMED.get(kind, kind)
        return f"{PACKAGE}.{CALLBACKS[kind]}.{kind}" if kind in CALLBACKS else name
    # a lower-case last part is a function or a file
    if len(parts) > 3 and room in [f"{PACKAGE}.{each}" for each in PUBLIC] and kind[:1].isupper():
        return f"{room}.{kind}"
    return name


def upgraded_config(config: Any) -> Any:
    """A configuration with the present paths of its classes and the present values of its fields.

    Args:
        config: What `config.yaml` or the hyperparameters of a checkpoint hold.
    """
    if isinstance(config, list):
        return [upgraded_config(value) for value in config]
    if not isinstance(config, dict):
        return config
    upgraded = {
        key: VALUES.get((key, value), value) if isinstance(value, str) else upgraded_config(value)
        for key, value in config.items()
    }
    named = {key: class_path(value) for key, value in upgraded.items() if key in NAMES and isinstance(value, str)}
    for kind in (path.rpartition(".")[2] for path in named.values()):
        fields = upgraded.get("init_args", upgraded)  # hyperparameters of a checkpoint have the arguments beside it
        if isinstance(fields, dict):
            for (owner, former), present in FIELDS.items():
                if owner == kind and former in fields:
                    fields[present] = fields.pop(former)
    upgraded |= named
    model = upgraded.get("model", upgraded if "_class_path" in upgraded else {})
    if isinstance(model, dict) and _is_ours(model.get("class_path", model.get("_class_path"))):
        for name in REMOVED:
            for fields in (model, model.get("init_args")):
                if isinstance(fields, dict):
                    fields.pop(name, None)
            upgraded.pop(f"model.{name}", None)
    return upgraded


def _is_ours(name: Any) -> bool:
    """Whether a class is one of this package, by its path, its short name, or as the default where none is named."""
    return not isinstance(name, str) or "." not in name or name.startswith(f"{PACKAGE}.")
