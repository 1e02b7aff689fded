"""`train` (fit, then test the best checkpoint, then print the result) and `fit` (without the test)."""

import shlex
import time

from lightning_cnn.cli.metric_table import STAGES, metric_table
from lightning_cnn.cli.words import read_words
from lightning_cnn.config.messages import class_named
from lightning_cnn.config.schema import FIT, TRAIN
from lightning_cnn.engine.fit import train
from lightning_cnn.resume.processes import process_rank
from lightning_cnn.tracking.record import given_folder
from lightning_cnn.tracking.run import RunFolder


def main(verb: str, argv: list[str]) -> int:
    """Trains, and prints the result. Returns the exit code."""
    config, run = read_words(TRAIN if verb == "train" else FIT, argv).begun()
    command = shlex.join(["lightning-cnn", verb, *argv])
    trained = train(config, resume=run, folder=given_folder(), command=command)
    if trained is not None and process_rank() == 0:
        data = class_named(config["data"]["class_path"], object)
        is_returns = getattr(data, "label_kind", "") == "monthly returns"
        print(_result(trained, "--prices FILE" if is_returns else "--images FILE_OR_FOLDER"))
    return 0


def _result(run: RunFolder, predicted: str) -> str:
    record = run.record
    seconds = record.seconds
    last = {f"last {name}": value for name, value in record.last.items()}
    shown = STAGES if record.metrics.items() >= record.last.items() else (*STAGES, "last train", "last val")
    lines = [metric_table(record.metrics | last, shown)] if record.metrics else []
    best = record.best
    if best:
        lines.append(f"best epoch   {best['epoch']} (counted from 0), {best['metric']} {best['value']:.4f}")
    lines += [
        f"epochs       {record.epochs}",
        f"parameters   {record.parameters:,}",
        f"time         {time.strftime('%H:%M:%S', time.gmtime(seconds))} on {record.device}",
        f"run folder   {run.folder}",
        *([f"W&B          {record.wandb['url']}"] if record.wandb.get("url") else []),
        "",
        "next: lightning-cnn compare    lightning-cnn dashboard    "
        f"lightning-cnn predict --ckpt_path {shlex.quote(f'{run.folder}/checkpoints/best.ckpt')} {predicted}",
    ]
    return "\n".join(lines)
