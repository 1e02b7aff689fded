"""Makes the trainer: Lightning's, with its mistakes in one line and our own way with signals."""

import os
import re
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_warn

from lightning_cnn.cluster.launcher import launcher
from lightning_cnn.errors import UserError
from lightning_cnn.resume.lightning_loops import own_signals

# of a trainer that shows, logs and keeps nothing
SILENT = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def make_trainer(**arguments: Any) -> Trainer:
    """A Lightning Trainer; what srun or torchrun has started takes part in it.

    Raises:
        UserError: If it does not take an argument.
    """
    _check_devices(arguments.get("accelerator", "auto"), arguments.get("devices", "auto"))
    try:
        trainer = Trainer(**_as_launched(arguments))
        own_signals(trainer)
        return trainer
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


def _as_launched(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with as many devices and machines as srun or torchrun has started processes on."""
    given = launcher()
    plugins = arguments.get("plugins") or []
    plugins = list(plugins) if isinstance(plugins, list) else [plugins]
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
