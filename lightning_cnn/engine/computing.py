"""Chooses how a network is computed, where the configuration leaves that open: the same way each time."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_cnn.datamodules.base import DataModule
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.finding import Findings
from lightning_cnn.modules.base import NetworkTask, Task
from lightning_cnn.modules.computing import best_computing, is_faster_in_bfloat16
from lightning_cnn.resume.processes import process_rank

AUTO = "auto"
DEFAULT_EPOCHS = 1000  # Lightning's, where nothing ends the training


def choose_computing(findings: Findings) -> None:
    """Sets the options of computing that are `auto`, and adds what has been chosen to what has been found.

    The first process chooses; the others hear of it when the training begins.

    Args:
        findings: The experiment, its data read.
    """
    experiment = findings.experiment
    model, config = experiment.model, experiment.config
    if not isinstance(model, Task) or process_rank() != 0:
        return
    if isinstance(experiment.data, DataModule):
        experiment.prepare("fit")  # which has been read, but where a finder has made it anew
    images, device = images_to_come(experiment), _device(config["trainer"]["accelerator"])
    example = model.example_input_array
    network = (model.network, example) if isinstance(model, NetworkTask) and isinstance(example, Tensor) else None
    opened = [name for name in model.computing() if model.hparams[name] == AUTO]
    if opened:
        # networks of other kinds, as those of sequences and of boxes, are computed as they are
        best = best_computing(*network, images, device) if network and len(model.computing()) > 1 else None
        chosen = {name: bool(best and getattr(best, name)) for name in opened}
        model.compute_as(**chosen)
        experiment.set(model=config["model"] | {"init_args": (config["model"].get("init_args") or {}) | chosen})
        findings.values |= {f"model.{name}": value for name, value in chosen.items()}
        if best and any((best.compile, best.channels_last)):
            told = ", ".join(f"`model.{name}` {str(value).lower()}" for name, value in chosen.items())
            findings.lines.append(f"chosen       {told}: {best.why}")
    precision = str(config["trainer"]["precision"] or "32-true")
    if network and precision in ("32", "32-true") and is_faster_in_bfloat16(*network, images, device):
        findings.lines.append("hint         with `trainer.precision` bf16-mixed this CPU may train a third faster")


def images_to_come(experiment: Experiment) -> float:
    """How many images, or windows, the training of an experiment shows; infinite without an end, 0 where nothing tells.

    Args:
        experiment: The experiment, its data read.
    """
    data, trainer = experiment.data, experiment.config["trainer"]
    if not isinstance(data, DataModule):
        return 0.0
    each, batches = len(data.dataset("train")), trainer["limit_train_batches"]
    if isinstance(batches, float):
        each = math.ceil(each * batches)
    elif batches is not None:
        each = min(each, batches * data.batch_size)
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if trainer["fast_dev_run"]:
        epochs, steps = 1, int(trainer["fast_dev_run"])
    ends = [epochs * each] if epochs not in (None, -1) else []
    ends += [steps * data.batch_size * trainer["accumulate_grad_batches"]] if steps not in (None, -1) else []
    return min(ends, default=DEFAULT_EPOCHS * each if epochs is None else math.inf)


def _device(accelerator: Any) -> str:
    """The type of the device on which it trains."""
    if accelerator != AUTO:
        return str(accelerator)
    found = torch.accelerator.current_accelerator()
    return found.type if found is not None and torch.accelerator.is_available() else "cpu"
