"""`features`: what a network computes of each image before its last layer, written once into a file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cnn.datamodules.batches import image_name
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.engine.feature_file import Features, check_suffix, write_features
from lightning_cnn.engine.loading import load
from lightning_cnn.engine.source import Source, Weights, checkpoint_of
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError, check_choice, first_line
from lightning_cnn.modules.network import REFUSALS

PARTS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Written:
    """A file of features.

    Attributes:
        path: The file.
        images: Number of images by part.
    """

    path: Path
    images: Mapping[str, int]


def features(
    source: Source | None,
    data: Any,
    *,
    parts: Sequence[Literal["train", "val", "test"]] = (),
    output: str | Path = "features.parquet",
    accelerator: Literal["auto", "cpu"] = "auto",
    trust: Sequence[str] = (),
) -> Written:
    """Writes the features of a network's last hidden layer for each image, for `probe` or any other tool.

    The images are those of the data, without augmentation.

    Args:
        source: A run, its folder, the path of a checkpoint, or `Weights`; None takes the scaled pixels themselves.
        data: An `ImageDataModule`. With the weights of timm its images are scaled as those want them, unless its
            `normalize` says another way.
        parts: Parts of the data (default: all that it has).
        output: The file to write, .parquet or .npz.
        accelerator: What to compute on.
        trust: Modules that a checkpoint from outside your runs directories may import, which runs their code.

    Raises:
        UserError: If the network or the data can't be used, or the file can't be written.
    """
    for part in parts:
        check_choice("parts", part, PARTS)
    check_choice("accelerator", accelerator, ("auto", "cpu"))
    path = check_suffix(output)
    if not isinstance(data, ImageDataModule):
        raise UserError(f"{type(data).__name__} is not an ImageDataModule: features are computed for images only")
    if data.label_kind != "classes":
        raise UserError(
            f"features are stored with the class of each image, but {type(data).__name__} has {data.label_kind}"
        )
    compute, architecture, weights = _network(source, data, accelerator, trust)
    chosen = tuple(parts) or tuple(part for part in PARTS if part != "test" or "test" in data.stages)
    with user_errors():
        for part in chosen:
            data.setup("fit" if part == "train" else {"val": "validate"}.get(part, part))
        names = {"architecture": architecture, "weights": weights, "data": type(data).__name__}
        write_features(path, _chunks(data, chosen, compute, names))
    return Written(path, {part: len(data.dataset(part)) for part in chosen})


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
        raise UserError(
            f"images of {shape} don't fit {type(network).__name__} ({first_line(error)}): try another `data.image_size`"
        ) from None
    return outputs.flatten(1)


def _network(
    source: Source | None, data: Any, accelerator: str, trust: Sequence[str]
) -> tuple[Callable[[Tensor], Tensor], str, str]:
    """What computes the features, and the names of the network and of its weights."""
    if source is None:
        return lambda images: images.flatten(1), "pixels", ""
    source = checkpoint_of(source)
    model, preprocessing = load(source, trust)
    if isinstance(source, Weights) and data.normalize == "auto":
        data.scale_by(preprocessing.mean, preprocessing.std, preprocessing.per_image)
    architecture = str(model.hparams.get("architecture", type(model).__name__))
    if getattr(model, "gives_masks", False):
        raise UserError(f"{architecture} classifies pixels, but features are of whole images: use a classifier")
    if not hasattr(model, "network"):
        raise UserError(f"{architecture} has no attribute `network`: use a checkpoint of a module that has one")
    channels = model.hparams.get("in_channels", data.in_channels)
    if data.in_channels not in (1, channels):
        raise UserError(
            f"{architecture} takes images of {channels} channels, but these have {data.in_channels}: take other data, "
            "with ImageFolder `data.color` grey"
        )
    device = torch.device("cuda" if accelerator == "auto" and torch.cuda.is_available() else "cpu")
    network: torch.nn.Module = model.network.to(device)  # type: ignore[assignment, union-attr, operator]

    def compute(images: Tensor) -> Tensor:
        # a network for colors sees grey images in each of its channels
        images = images.to(device).expand(-1, channels, -1, -1)
        return features_of(network, images).float().cpu()

    return compute, architecture, (source.file or "timm's") if isinstance(source, Weights) else str(source)


def _chunks(
    data: Any, parts: Sequence[str], compute: Callable[[Tensor], Tensor], source: dict[str, str]
) -> Iterator[Features]:
    for part in parts:
        dataset, done = data.dataset(part), 0
        for batch in data.ordered_batches(part):
            with torch.inference_mode():
                images, labels, *_ = data.on_after_batch_transfer(batch, 0)
                values = compute(images).numpy()
            names = [image_name(dataset, done + row) for row in range(len(labels))]
            done += len(labels)
            # a file name may be no text, which Parquet can't hold
            names = [name.encode("utf-8", "backslashreplace").decode() for name in names]
            columns = (values, labels.numpy(), np.array(names), np.array([part] * len(labels)))
            yield Features(*columns, tuple(data.class_names), source)
