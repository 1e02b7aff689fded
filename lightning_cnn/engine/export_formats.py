"""The formats of `export`: how to write a traced network and how to run the file."""

import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from lightning_cnn import __version__
from lightning_cnn.errors import UserError, first_line

ONNX_BYTES = 2**31 - 2**24  # protobuf ends at 2 GiB; the rest is for the graph


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: End of the file's name.
        save: Writes the program to a binary file, with metadata.
        load: Reads such a file; returns a function from images to logits.
    """

    suffix: str
    save: Callable[[ExportedProgram, BinaryIO, dict[str, str]], None]
    load: Callable[[Path], Callable[[Tensor], Tensor]]


def trace(model: nn.Module, images: Tensor) -> ExportedProgram:
    """Records what a model computes, for batches of any size.

    Args:
        model: In evaluation mode.
        images: Some images of the size that it is to take, at least two: one would become a constant.

    Raises:
        UserError: If torch can't, mostly because the computation depends on values or on the size of the batch.
    """
    for module in model.modules():
        if hasattr(module, "inplace"):  # the same outputs, and many a network becomes ONNX in half the time
            module.inplace = False  # type: ignore[assignment]
    try:
        with _silent(), torch.no_grad():
            program = torch.export.export(model, (images,), dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}])
    except Exception as error:  # torch documents no class for it
        raise UserError(f"torch.export can't trace this network ({first_line(error, 200)}): use another") from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, in all formats
    return program


def save_onnx(program: ExportedProgram, file: BinaryIO, metadata: dict[str, str]) -> None:
    """Writes ONNX: input `images`, output `logits`, or what `output` in the metadata says, both for any `batch`.

    Args:
        program: What `trace` returns.
        file: Binary file to write to.
        metadata: Becomes the model's custom metadata.

    Raises:
        UserError: If the network has an operation that ONNX lacks, or is too large for one file.
    """
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size > ONNX_BYTES:
        raise UserError(f"the weights have {size / 1e9:.1f} GB, an ONNX file at most 2 GB: use `output` model.pt2")
    output = metadata.get("output", "logits")
    names: Any = {"input_names": ["images"], "output_names": [output], "dynamic_shapes": [{0: "batch"}]}
    try:
        with _silent():
            written = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    except Exception as error:  # as above
        raise UserError(
            f"torch can't export this network to ONNX ({first_line(error, 200)}): use `output` model.pt2"
        ) from None
    assert written is not None
    written.model.producer_name, written.model.producer_version = "lightning-cnn", __version__
    written.model.metadata_props.update(metadata)
    file.write(written.model_proto.SerializeToString())


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Reads an ONNX file into onnxruntime, on the CPU."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def save_torch(program: ExportedProgram, file: BinaryIO, metadata: dict[str, str]) -> None:
    """Writes a file for `torch.export.load(path, extra_files={"class_names": "", ...})`.

    Args:
        program: What `trace` returns.
        file: Binary file to write to.
        metadata: Becomes the extra files, by the same names.
    """
    content = io.BytesIO()  # torch asks a file for more than it has
    with _silent():
        torch.export.save(program, content, extra_files=metadata)
    file.write(content.getbuffer())


def load_torch(path: Path) -> Callable[[Tensor], Tensor]:
    """Reads a file of `torch.export.save`."""
    with path.open("rb") as file, _silent():
        return torch.export.load(file).module()


FORMATS = {
    "onnx": Format(".onnx", save_onnx, load_onnx),
    "torch": Format(".pt2", save_torch, load_torch),
}


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps the exporters' progress and advice off the terminal; what they raise says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
