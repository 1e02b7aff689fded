"""`export`: a trained network as one file, ONNX or torch.export, to use without this package; checked against torch."""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.export_formats import FORMATS, trace
from lightning_cnn.engine.loading import load
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.source import Source, Weights, checkpoint_of
from lightning_cnn.errors import UserError, check_choice, require
from lightning_cnn.modules.base import Task
from lightning_cnn.resume.files import make_folder, replacing
from lightning_cnn.tracking.run import RunFolder

BATCHES = (1, 2, 5)  # 1 and 2 are where a batch size that became a constant would show
TOLERANCE = 1e-4
ELSEWHERE = "choose another place with `output`"


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: The file.
        size: Its bytes.
        shape: Channels, height and width of the images that it takes.
        difference: Largest difference of its outputs from torch's.
        largest: Largest output.
        output: Name of the output, `logits` or `boxes`.
    """

    path: Path
    size: int
    shape: tuple[int, int, int]
    difference: float
    largest: float
    output: str = "logits"


def export(
    source: Source,
    *,
    output: str | Path | None = None,
    format: Literal["onnx", "torch"] | None = None,
    trust: Sequence[str] = (),
) -> Exported:
    """Writes a trained network as ONNX or torch.export, for batches of any size.

    The file maps preprocessed images to logits, or those of a detector to boxes and scores before non-maximum
    suppression. It holds class names and preprocessing as metadata. Its outputs are compared with torch's before it is
    saved.

    Args:
        source: A run, its folder, the path of a checkpoint, or `Weights`.
        output: File to write, .onnx or .pt2 (default: model.onnx, or model.pt2).
        format: Format, onnx or torch (default: by the suffix of the file).
        trust: Modules that a checkpoint from outside your runs directories may import, which runs their code.

    Raises:
        UserError: If the model can't be had or exported, or the file differs from it or can't be written.
    """
    if format is not None:
        check_choice("format", format, FORMATS)
    path, kind = find_target(output, format)
    if kind == "onnx":
        require("export", f"{path}: ONNX", "; or take `output` model.pt2, which needs nothing more")
    be_quiet()
    model, preprocessing = load(source, trust)
    network, told = model.exported() if isinstance(model, Task) else (model, {})
    side, channels = preprocessing.image_size, preprocessing.in_channels
    make_folder(path.parent, ELSEWHERE)
    with replacing(path, ELSEWHERE) as file:  # opened before all the work
        program = trace(network, torch.zeros(2, channels, side, side))
        FORMATS[kind].save(program, file, describe(model, preprocessing, source) | told)
        file.flush()
        difference, largest = compare(network, FORMATS[kind].load(Path(file.name)), preprocessing)
        # float32 has seven digits: beyond 1 it is the share of the largest logit that counts
        if not difference <= TOLERANCE * max(1.0, largest):
            raise UserError(
                f"{path} was not written: its outputs differ from torch's by {difference:.1e}, and reach "
                f"{largest:.3g}: try the other format, .onnx or .pt2"
            )
        shape = channels, side, side
        return Exported(path, file.tell(), shape, difference, largest, told.get("output", "logits"))


def find_target(output: str | Path | None, kind: str | None) -> tuple[Path, str]:
    """The file to write and its format.

    Args:
        output: The file, whose suffix says the format; None for the usual one.
        kind: The format, None where only the file says it.

    Raises:
        UserError: If the suffix is unknown, or contradicts the format.
    """
    path = Path(f"model{FORMATS[kind or 'onnx'].suffix}" if output is None else output)
    found = next((name for name, form in FORMATS.items() if form.suffix == path.suffix.lower()), None)
    if found is None:
        raise UserError(f"`output` {output}: the name must end in .onnx (ONNX) or .pt2 (torch.export)")
    if kind not in (None, found):
        raise UserError(f"`output` {output} does not match `format` {kind}: remove one of them")
    return path, found


def describe(model: LightningModule, preprocessing: Preprocessing, source: Source) -> dict[str, str]:
    """What the file carries beside the network.

    Args:
        model: The model.
        preprocessing: The preparation of its images.
        source: Where it comes from.

    Returns:
        `class_names` and `preprocessing` as JSON, a list and the other fields of `Preprocessing`; `heads` as JSON, the
        sizes of the heads where the outputs are those of several, one behind the other; `architecture`; and `run` as
        `<experiment>/<run id>`, empty where it comes from no run.
    """
    values = preprocessing.to_dict()
    names = values.pop("class_names") or [str(number) for number in range(model.hparams.get("num_classes", 0))]
    run = ""
    found = checkpoint_of(source)
    if not isinstance(found, Weights):
        with contextlib.suppress(UserError):  # the checkpoint may lie anywhere
            run = RunFolder.open(found.resolve().parent.parent).label
    return {
        "class_names": json.dumps(names),
        "preprocessing": json.dumps(values),
        "heads": json.dumps(getattr(model, "heads", [])),
        "architecture": str(model.hparams.get("architecture", type(model).__name__)),
        "run": run,
    }


@torch.no_grad()
def compare(
    model: nn.Module, exported: Callable[[Tensor], Tensor], preprocessing: Preprocessing
) -> tuple[float, float]:
    """Compares the file with the model on noise and on smooth images like photos, in batches of several sizes.

    Args:
        model: What was exported, in evaluation mode.
        exported: Runs the file: float `(n, in_channels, image_size, image_size)` to what the model returns.
        preprocessing: Size and scaling of the images.

    Returns:
        The largest difference, NaN where a number is missing on one side, and the largest logit, both absolute.

    Raises:
        UserError: If the model itself gives no finite numbers.
    """
    generator = torch.Generator().manual_seed(0)
    side, channels = preprocessing.image_size, preprocessing.in_channels
    differences, largest = [], 0.0
    for count in BATCHES:
        noise = torch.randn(count, channels, side, side, generator=generator)
        coarse = torch.rand(count, channels, 4, 4, generator=generator)
        smooth = preprocessing.scale(F.interpolate(coarse, (side, side), mode="bilinear"))
        for images in (noise, smooth):
            expected: Tensor = model(images)
            if not expected.isfinite().all():
                raise UserError("the network's outputs are NaN or infinite: use another checkpoint")
            differences.append((exported(images) - expected).abs().max())
            largest = max(largest, float(expected.abs().max()))
    return float(torch.stack(differences).max()), largest
