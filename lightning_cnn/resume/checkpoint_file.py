"""Checkpoint files: written whole or not at all, and read without running code from them."""

import errno
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.plain_tensors import read_tensors
from lightning_cnn.resume.files import make_folder, replacing, storage_error

# what every checkpoint of Lightning has, and what is read of it here or by Lightning
PARTS: dict[str, type] = {"state_dict": dict, "epoch": int, "global_step": int, "loops": dict, "callbacks": dict}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and then renames it.

    A crash, a full disk or a power cut leaves the previous checkpoint as it was. Lightning's own writing is atomic
    only where the folder for temporary files lies on the same file system.

    Args:
        run_folder: A run folder, which is not made again where somebody removed it.
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder.absolute()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Saves a checkpoint.

        Args:
            checkpoint: The state to save.
            path: The target file.
            storage_options: Not used.

        Raises:
            StorageError: If the disk is full, the folder can't be written, or the run folder is gone.
        """
        target = Path(path)
        if target.absolute().is_relative_to(self.run_folder) and not self.run_folder.is_dir():
            raise storage_error(target, FileNotFoundError(errno.ENOENT, "its folder is gone"))
        make_folder(target.parent)

        def size() -> int:
            counter = _Counter()
            torch.save(checkpoint, counter)  # type: ignore[arg-type]
            return counter.count

        try:
            with replacing(target, size=size) as file:
                torch.save(checkpoint, file)
        except StorageError as error:
            raise StorageError(f"{error}; the previous one is intact" if target.exists() else str(error)) from None


class _Counter:
    """A file that keeps nothing but the number of its bytes."""

    count = 0

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        self.count += size
        return size

    def flush(self) -> None:
        """Does nothing; torch asks for it."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint as plain data; pickled code in it is refused, not run.

    Raises:
        UserError: If the file is missing, truncated, no checkpoint of Lightning, or holds pickled code.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no checkpoint {file}: expected a file such as runs/NAME/ID/checkpoints/best.ckpt")
    content = read_tensors(file, "a checkpoint", _instead_of(file))
    if not isinstance(content, dict) or "state_dict" not in content or "pytorch-lightning_version" not in content:
        raise UserError(f"{file} is not a Lightning checkpoint: use one that lightning-cnn or Lightning wrote")
    damaged = [name for name, kind in PARTS.items() if not isinstance(content.get(name, kind()), kind)]
    state = {} if "state_dict" in damaged else content["state_dict"]
    if damaged or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise UserError(f"the checkpoint {file} is damaged: {(damaged or ['state_dict'])[0]} is not what it should be")
    return {**{name: kind() for name, kind in PARTS.items() if kind is int}, **content}


def _instead_of(file: Path) -> str:
    """What to use in the place of a damaged checkpoint: of a run the other one, where there is one."""
    other = file.with_name({"last.ckpt": "best.ckpt", "best.ckpt": "last.ckpt"}.get(file.name, file.name))
    return f"use `ckpt_path` {other}" if other != file and other.is_file() else "use another"


def preprocessing_of(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The preprocessing that a checkpoint carries of its images, as plain data; None where it carries none."""
    return data_state(checkpoint, "preprocessing")


def data_state(checkpoint: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What a checkpoint carries of its data under a name, as plain data; None where it carries nothing.

    Args:
        checkpoint: What `load_checkpoint` returns.
        name: Such as `preprocessing` of images, or `scaling` of returns.
    """
    for value in checkpoint.values():
        if isinstance(value, dict) and isinstance(value.get(name), dict):
            return cast(dict[str, Any], value[name])
    return None
