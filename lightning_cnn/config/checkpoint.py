"""Checkpoints as the user names them: whose they are, and the classes that they were made with."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule

from lightning_cnn.config.trust import check_arguments, class_named, note_origin
from lightning_cnn.errors import UserError
from lightning_cnn.resume.checkpoint_file import load_checkpoint
from lightning_cnn.tracking.upgrades import upgraded_config
from lightning_cnn.user_code import PACKAGE

# where a checkpoint says what its model and its data were made with, and what they must be
PARTS: dict[str, tuple[str, type]] = {
    "model": ("hyper_parameters", LightningModule),
    "data": ("datamodule_hyper_parameters", LightningDataModule),
}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Notes whose file it is, then reads it as `load_checkpoint` does.

    Raises:
        UserError: If it can't be read, or holds pickled code.
    """
    note_origin(path)
    return load_checkpoint(path)


def class_and_arguments(checkpoint: dict[str, Any], of: str) -> tuple[str, dict[str, Any]] | None:
    """The class path and the arguments of the model or the data that a checkpoint was made with.

    Args:
        checkpoint: What `read_checkpoint` returns.
        of: `model` or `data`.

    Returns:
        None where the checkpoint was not made by the command line.

    Raises:
        UserError: If the class is no LightningModule or LightningDataModule, or if a file of somebody else names code.
    """
    key, kind = PARTS[of]
    arguments = checkpoint.get(key) or {}
    if not isinstance(arguments, dict) or not all(isinstance(name, str) for name in arguments):
        raise UserError(f"the checkpoint is damaged: {key} must be keyword arguments; use another checkpoint")
    class_path = arguments.get("_class_path")
    arguments = upgraded_config(arguments)
    arguments = {name: value for name, value in arguments.items() if name not in ("_class_path", "_instantiator")}
    ours = not class_path or class_named(class_path, kind).__module__.partition(".")[0] == PACKAGE
    check_arguments(arguments, ours)
    return (str(class_path), arguments) if class_path else None
