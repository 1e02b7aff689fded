"""`train` (fit, then test the best checkpoint, then print the result) and `fit` (without the test)."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lightning_cnn.cli.metric_table import STAGES, metric_table
from lightning_cnn.cli.words import read_words
from lightning_cnn.config.messages import class_named
from lightning_cnn.config.schema import FIT, TRAIN
from lightning_cnn.datamodules import ImageDataModule
from lightning_cnn.engine.fit import train
from lightning_cnn.engine.source import checkpoint_of
from lightning_cnn.errors import UserError
from lightning_cnn.resume.processes import process_rank
from lightning_cnn.tracking.comparison import short
from lightning_cnn.tracking.record import given_folder
from lightning_cnn.tracking.run import RunFolder


def main(verb: str, argv: list[str]) -> int:
    """Trains, and prints the result. Returns the exit code."""
    config, run = read_words(TRAIN if verb == "train" else FIT, argv).begun()
    command = shlex.join(["lightning-cnn", verb, *argv])
    trained = train(config, resume=run, folder=given_folder(), command=command)
    if trained is not None and process_rank() == 0:
        print(_result(trained, config["data"]))
    return 0


def _next(run: RunFolder, data: Mapping[str, Any]) -> str:
    """What can be done with a run."""
    words = ["next: lightning-cnn compare", "lightning-cnn dashboard"]
    with suppress(UserError):  # there is no checkpoint
        path, kind = shlex.quote(str(checkpoint_of(run))), class_named(data["class_path"], object)
        if getattr(kind, "label_kind", "") == "monthly returns":
            file = "--returns" if data.get("init_args", {}).get("returns") else "--prices"
            words.append(f"lightning-cnn predict --ckpt_path {path} {file} FILE")
        elif issubclass(kind, ImageDataModule):
            words.append(f"lightning-cnn predict --ckpt_path {path} --images FILE_OR_FOLDER")
    return "    ".join(words)


def _result(run: RunFolder, data: Mapping[str, Any]) -> str:
    record = run.record
    minutes, seconds = divmod(round(record.seconds), 60)
    last = {f"last {name}": value for name, value in record.last.items()}
    shown = STAGES if record.metrics.items() >= record.last.items() else (*STAGES, "last train", "last val")
    lines = [metric_table(record.metrics | last, shown)] if record.metrics else []
    best = record.best
    if best:
        lines.append(f"best epoch   {best['epoch']} (counted from 0), {best['metric']} {short(best['value'])}")
    lines += [
        f"epochs       {record.epochs}",
        f"parameters   {record.parameters:,}",
        f"time         {minutes // 60:02}:{minutes % 60:02}:{seconds:02} on {record.device}",
        f"run folder   {run.folder}",
        *([f"W&B          {record.wandb['url']}"] if record.wandb.get("url") else []),
        "",
        _next(run, data),
    ]
    return "\n".join(lines)
