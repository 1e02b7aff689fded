"""Makes a network by name and says in one sentence why it can't."""

import importlib
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import lightning_cnn.architectures  # noqa: F401  registers ours with timm
from lightning_cnn.errors import UserError, did_you_mean

SIZES = (16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 160, 192, 224, 256, 299, 384)


def create_network(
    architecture: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """Makes a network of ours, of timm, or of a file of the user's own.

    Args:
        architecture: A name in timm's registry, or `my_file.my_network`, where importing `my_file` registers it.
        num_classes: Size of the output.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
        pretrained: Whether to load the weights that timm knows of.
        options: Further arguments of the network, such as `{"drop_rate": 0.3}`.

    Returns:
        A network that maps `(batch, in_channels, image_size, image_size)` to `(batch, num_classes)`.

    Raises:
        UserError: If the name or an option is unknown, the weights can't be had, or the images are too small.
    """
    name = _registered(architecture)
    network = _create(name, num_classes, in_channels, image_size, pretrained, dict(options or {}))
    if reason := _refuses(network, in_channels, image_size):
        raise UserError(_size_message(architecture, num_classes, in_channels, image_size, dict(options or {}), reason))
    return network


def _registered(architecture: str) -> str:
    if timm.is_model(architecture):
        return architecture
    module, _, name = architecture.rpartition(".")
    if module and not timm.is_model(architecture.split(".")[0]):
        if (folder := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, folder)
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(f"--model.architecture {architecture}: there is no module {error.name!r}") from None
        if timm.is_model(name):
            return name
        raise UserError(f"--model.architecture {architecture}: {module} does not @register_model a function {name!r}")
    hint = did_you_mean(architecture, timm.list_models()) or "; `lightning-cnn list architectures` shows all"
    raise UserError(f"unknown --model.architecture {architecture!r}{hint}")


def _create(
    name: str, num_classes: int, in_channels: int, image_size: int, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    try:
        return _build(name, num_classes, in_channels, image_size, pretrained, options)
    except TypeError as error:
        raise UserError(f"--model.architecture {name} does not take these options ({error})") from None
    except RuntimeError as error:
        if pretrained and "retrained" in str(error):
            raise UserError(f"there are no pretrained weights for {name}: drop --model.pretrained") from None
        if "size" not in str(error):
            raise
        message = _size_message(name, num_classes, in_channels, image_size, options, _first_line(error))
        raise UserError(message) from None
    except OSError as error:
        raise UserError(f"the weights of {name} can't be loaded ({_first_line(error)}): is there a network?") from None


def _build(
    name: str, num_classes: int, in_channels: int, image_size: int, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    arguments = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": in_channels, **options}
    try:  # timm does not tell which of its networks are built for one size
        return timm.create_model(name, img_size=image_size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **arguments)


def _refuses(network: nn.Module, in_channels: int, image_size: int) -> str:
    """Why the network can't take such images, or an empty string."""
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, in_channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        return _first_line(error)
    finally:
        network.train(training)
    return ""


def _size_message(
    name: str, num_classes: int, in_channels: int, image_size: int, options: dict[str, Any], reason: str
) -> str:
    for size in SIZES:
        if size > image_size:
            try:
                network = _build(name, num_classes, in_channels, size, False, options)
            except (RuntimeError, AssertionError, ValueError):
                continue
            if not _refuses(network, in_channels, size):
                return f"images of {image_size}x{image_size} don't fit {name} ({reason}): try --data.image_size {size}"
    return f"images of {image_size}x{image_size} don't fit {name} ({reason}): try another --data.image_size"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
