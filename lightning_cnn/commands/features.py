"""`features`: what a network computes of each image before its last layer, written once into a file."""

import argparse
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.cli import parsers
from lightning_cnn.datamodules.batches import image_name
from lightning_cnn.engine.data_source import make_data
from lightning_cnn.engine.feature_file import Features, check_suffix, write_features
from lightning_cnn.engine.model_source import load_source
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.wiring import mendable
from lightning_cnn.errors import UserError
from lightning_cnn.modules.network import REFUSALS


def main(verb: str, argv: list[str]) -> int:
    """Writes one row an image: features, label, part and file name. Returns the exit code."""
    options, words = parsers.features(verb).parse_known_args(argv)
    path = check_suffix(options.output)
    be_quiet()
    compute, data, weights = _source(options, words)
    parts = options.parts or [part for part in parsers.PARTS if part != "test" or "test" in data.stages]
    source = {"architecture": weights[0], "weights": weights[1], "data": type(data).__name__}
    with mendable():
        for part in parts:
            data.setup("fit" if part == "train" else {"val": "validate"}.get(part, part))
        count = write_features(path, _chunks(data, parts, compute, source))
    print(f"written to {path}: {count:,} images")
    print(f"\nnext: lightning-cnn probe {shlex.quote(str(path))} --method logistic")
    return 0


def features_of(network: torch.nn.Module, images: Tensor) -> Tensor:
    """What a network computes before its last layer.

    Args:
        network: Of timm, or with its methods `forward_features` and `forward_head`.
        images: `(b, channels, height, width)`, scaled as it wants them.

    Returns:
        `(b, n)`.

    Raises:
        UserError: If the network lacks these methods, or the images don't fit it.
    """
    if not hasattr(network, "forward_features") or not hasattr(network, "forward_head"):
        raise UserError(f"{type(network).__name__} has no forward_features and forward_head, as timm's networks do")
    try:
        outputs: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[operator]
    except REFUSALS as error:
        shape = "x".join(map(str, images.shape[1:]))
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"images of {shape} don't fit {type(network).__name__} ({reason}): try another --data.image_size"
        ) from None
    return outputs.flatten(1)


def _source(options: argparse.Namespace, words: list[str]) -> tuple[Callable[[Tensor], Tensor], Any, tuple[str, str]]:
    """What computes the features, the data, and the names of the network and of its weights."""
    if options.pixels:
        if options.ckpt_path or options.architecture or options.weights:
            raise UserError("--pixels takes no network: leave --ckpt_path, --architecture and --weights out")
        return lambda images: images.flatten(1), _image_data(words), ("pixels", "")
    model, preprocessing = load_source(options)
    if options.ckpt_path:
        words = ["--ckpt_path", options.ckpt_path, *words]
    data = _image_data(words)
    if options.architecture and data.normalize == "auto":
        data.scale_by(preprocessing.mean, preprocessing.std)
    architecture = str(model.hparams.get("architecture", type(model).__name__))
    if not hasattr(model, "network"):
        raise UserError(f"{architecture} has no attribute network to take features from: use a checkpoint that has one")
    channels = model.hparams.get("in_channels", data.in_channels)
    if data.in_channels not in (1, channels):
        raise UserError(
            f"{architecture} takes images of {channels} channels, but these have {data.in_channels}: take other data, "
            "with ImageFolder --data.color grey"
        )
    device = torch.device("cuda" if options.accelerator == "auto" and torch.cuda.is_available() else "cpu")
    network: torch.nn.Module = model.network.to(device)  # type: ignore[assignment, union-attr, operator]

    def compute(images: Tensor) -> Tensor:
        # a network for colors sees grey images in each of its channels
        images = images.to(device).expand(-1, channels, -1, -1)
        return features_of(network, images).float().cpu()

    weights = options.ckpt_path or options.weights or "timm's"
    return compute, data, (architecture, weights)


def _image_data(words: list[str]) -> Any:
    data = make_data(words)
    if not hasattr(data, "ordered_batches"):
        raise UserError(f"{type(data).__name__} is no ImageDataModule: features are computed of its data only")
    return data


def _chunks(
    data: Any, parts: list[str], compute: Callable[[Tensor], Tensor], source: dict[str, str]
) -> Iterator[Features]:
    for part in parts:
        dataset, done = data.dataset(part), 0
        for batch in data.ordered_batches(part):
            with torch.inference_mode():
                images, labels = data.on_after_batch_transfer(batch, 0)
                values = compute(images).numpy()
            names = [image_name(dataset, done + row) for row in range(len(labels))]
            done += len(labels)
            # a file name may be no text, which Parquet can't hold
            names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
            columns = (values, labels.numpy(), np.array(names), np.array([part] * len(labels)))
            yield Features(*columns, tuple(data.class_names), source)
        print(f"{part}: {done:,} images")
