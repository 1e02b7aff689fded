"""Where a trained model comes from. Imports neither torch nor timm."""

from dataclasses import dataclass
from pathlib import Path

from lightning_cnn.errors import UserError
from lightning_cnn.tracking.record import RECORD
from lightning_cnn.tracking.run import RunFolder


@dataclass(frozen=True)
class Weights:
    """A network of timm with its weights, in the place of a checkpoint.

    Attributes:
        architecture: Its name.
        file: File of the weights; default those that timm downloads.
    """

    architecture: str
    file: str | None = None


Source = str | Path | Weights | RunFolder  # a checkpoint, a run or its folder, or weights


def checkpoint_of(source: Source) -> Path | Weights:
    """The file of a source: of a run its best checkpoint, or the last where there is no best one.

    Args:
        source: A run, its folder, the path of a checkpoint, or weights, which stay as they are.

    Raises:
        UserError: If the run has no checkpoint.
    """
    if isinstance(source, Weights):
        return source
    path = source.folder if isinstance(source, RunFolder) else Path(source)
    if not (path / RECORD).is_file():
        return path
    for file in (path / "checkpoints" / f"{kind}.ckpt" for kind in ("best", "last")):
        if file.is_file():
            return file
    raise UserError(f"the run {path} has no checkpoint: choose another run, or train it again")
