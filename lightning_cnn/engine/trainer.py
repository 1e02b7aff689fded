"""Makes the trainer: Lightning's, with its mistakes in one line and our own way with signals."""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnn.cluster.launcher import launcher
from lightning_cnn.engine.freed_memory import keep_freed_memory
from lightning_cnn.engine.synced_norms import SyncedNorms
from lightning_cnn.errors import UserError, check
from lightning_cnn.resume.lightning_loops import own_signals, starts_first_process
from lightning_cnn.resume.lightning_steps import shorten_steps

# of a trainer that shows, logs and keeps nothing
SILENT = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


# the smallest value of each number that Lightning would divide by, or take for something else
LEAST = {
    "log_every_n_steps": 1,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "min_epochs": 0,
    "min_steps": 0,
    "max_epochs": -1,
    "max_steps": -1,
    "num_sanity_val_steps": -1,
}
FLOAT32 = re.compile(r"32(-true)?|(16|bf16)(-mixed)?")  # where the weights stay what the data are


def check_options(trainer: Mapping[str, Any], is_task: bool) -> None:
    """Refuses options of the trainer that Lightning accepts and can't train with.

    Args:
        trainer: The fields of the trainer.
        is_task: Whether the model is a task of this package.

    Raises:
        UserError: For the first such option.
    """
    for name, least in LEAST.items():
        if trainer[name] is not None:
            check(f"trainer.{name}", trainer[name], least=least)
    for unit in ("steps", "epochs"):
        least, most = trainer[f"min_{unit}"], trainer[f"max_{unit}"]
        if None not in (least, most) and 0 <= most < least:
            raise UserError(f"`trainer.min_{unit}` {least} is more than `trainer.max_{unit}` {most}: lower it")
    if isinstance(interval := trainer["val_check_interval"], int | float):
        check("trainer.val_check_interval", interval, above=0)
    precision = trainer["precision"]
    if is_task and precision is not None and not FLOAT32.fullmatch(str(precision)):
        raise UserError(f"`trainer.precision` {precision}: data and weights are float32; use bf16-mixed or 16-mixed")


def make_trainer(**arguments: Any) -> Trainer:
    """A Lightning Trainer; what srun or torchrun has started takes part in it. On the CPU, freed memory is kept.

    Raises:
        UserError: If it does not take an argument.
    """
    _check_devices(arguments.get("accelerator", "auto"), arguments.get("devices", "auto"))
    try:
        trainer = Trainer(**_as_launched(arguments))
        shorten_steps(trainer)
        own_signals(trainer)
    except (MisconfigurationException, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).replace("`", "'")  # in backticks stand our settings
        raise UserError(f"the trainer does not accept this: {reason}") from None
    except RuntimeError as error:
        twice = re.search(r"more than one stateful callback of type `(\w+)`", str(error))
        if twice is None:
            raise
        raise UserError(
            f"`trainer.callbacks`: {twice[1]} is given twice; a resumed run already has it, so remove it"
        ) from None
    if starts_first_process(trainer):
        raise UserError(
            f"`trainer.strategy` {arguments.get('strategy')}: it trains in another process, which can't write the "
            "record of the run; use ddp"
        )
    if isinstance(trainer.accelerator, CPUAccelerator):
        if arguments.get("sync_batchnorm") and trainer.world_size > 1:
            raise UserError("`trainer.sync_batchnorm`: only GPUs can synchronize batch normalization: remove it")
        keep_freed_memory()
    return trainer


def _as_launched(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with our plugins, and as many devices and machines as srun or torchrun has started processes on."""
    given = launcher()
    plugins = arguments.get("plugins") or []
    plugins = list(plugins) if isinstance(plugins, list) else [plugins]
    if arguments.get("sync_batchnorm"):
        plugins.append(SyncedNorms())
    if given is not None:
        if arguments.get("devices", "auto") == "auto":
            arguments = arguments | {"devices": given.processes}
        arguments = arguments | {"num_nodes": given.machines}
        if given.name == "torchrun" and _may_find_ended_processes():
            rank_zero_warn(
                "torchrun will restart processes, which may then look for addresses of processes that have ended: "
                "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before it"
            )
        if given.name == "srun":  # Lightning would look at the name of the job, and queue it again itself
            os.environ["SLURM_NTASKS_PER_NODE"] = str(given.processes)
            plugins.append(SLURMEnvironment(auto_requeue=False))
    elif "SLURM_NTASKS" in os.environ:  # alone in a job, it may start processes as on any machine
        plugins.append(LightningEnvironment())
    return arguments | {"plugins": plugins}


def _may_find_ended_processes() -> bool:
    """Whether torchrun keeps one store for all attempts: nothing in it tells their addresses apart (PyTorch 2.15)."""
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return shared and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


def _check_devices(accelerator: Any, devices: Any) -> None:
    """Refuses more processes than cores where GPUs were meant; Lightning would start them all on the CPU.

    Args:
        accelerator: Of the trainer's arguments.
        devices: Of the trainer's arguments.

    Raises:
        UserError: If there is no GPU, the CPU was not asked for, and there are fewer cores.
    """
    cores = os.cpu_count() or 1
    wanted = int(devices) if str(devices).isdecimal() else 1
    if accelerator == "auto" and wanted > cores and not torch.accelerator.is_available():
        raise UserError(
            f"`trainer.devices` {devices}: no GPU found, and the CPU has {cores} cores; use fewer, or add "
            "`trainer.accelerator` cpu"
        )
