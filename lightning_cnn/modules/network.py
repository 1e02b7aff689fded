"""Makes a network by name and says in one sentence why it can't."""

from textwrap import shorten
from typing import Any

import timm
import torch
from torch import Tensor, nn

import lightning_cnn.architectures  # noqa: F401  registers ours with timm
from lightning_cnn.config.trust import import_named
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.modules.pretrained import Weights, calm_new_head, check_loaded, loading, overlay

# the arguments of a network that create_network passes itself
OWN_ARGUMENTS = {"num_classes", "in_chans", "img_size", "pretrained"}
# what create_network leaves to its own options, which read files of weights as plain data
READING = {"pretrained": "`model.pretrained`", "checkpoint_path": "`model.weights`"}
# what timm's networks raise at images that they can't take
REFUSALS = (RuntimeError, AssertionError, ValueError, ZeroDivisionError)
SIZES = (16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 160, 192, 224, 256, 299, 384)


def create_network(
    architecture: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    options: dict[str, Any] | None = None,
    weights: Weights | None = None,
) -> nn.Module:
    """Makes a network of ours, of timm, or of a file of the user's own.

    Args:
        architecture: A name in timm's registry, or `my_file.my_network`, where importing `my_file` registers it.
        num_classes: Size of the output.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels; for a network that takes sequences, their length.
        pretrained: Whether to load the weights that timm knows of.
        options: Further arguments of the network, such as `{"drop_rate": 0.3}`.
        weights: Weights to start from; a head for another number of classes stays new.

    Returns:
        A network that maps `(batch, in_channels, image_size, image_size)`, or `(batch, in_channels, image_size)`, to
        `(batch, num_classes)`.

    Raises:
        UserError: If the name or an option is unknown, the weights can't be had or are another network's, the images
            are too small, or the network gives no logits.
    """
    options = dict(options or {})
    for option in (OWN_ARGUMENTS | READING.keys()) & options.keys():
        cure = f"use {READING[option]}" if option in READING else "the data says it to the network; leave it out"
        raise UserError(f"`model.architecture_options` {option}: {cure}")
    name = _registered(architecture)
    network = _create(name, num_classes, in_channels, image_size, pretrained, options)
    try:
        outputs = _trial(network, input_shape(name, in_channels, image_size))
    except REFUSALS as error:
        size = _size_that_fits(name, num_classes, in_channels, image_size, options)
        raise UserError(_size_message(name, image_size, size, error)) from None
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if num_classes and shape != (1, num_classes):
        raise UserError(
            f"`model.architecture` {name} is no classifier with these options: for one image it gives {shape} "
            f"where {(1, num_classes)} is needed"
        )
    if weights is not None:
        network = _filled(network, name, num_classes, in_channels, image_size, options, weights)
    if pretrained or weights is not None:
        calm_new_head(network)
    return network


def takes_sequences(architecture: str) -> bool:
    """Whether a network takes sequences, not images: timm's configuration of it then says that they are 1 high.

    Args:
        architecture: A name in timm's registry, or `my_file.my_network`.

    Raises:
        UserError: If there is no such network.
    """
    config = timm.get_pretrained_cfg(_registered(architecture), allow_unregistered=True)
    return config is not None and config.input_size[1] == 1


def input_shape(architecture: str, in_channels: int, image_size: int) -> tuple[int, ...]:
    """What a network takes, without the batch: `(in_channels, side, side)`, or of sequences `(in_channels, length)`.

    Args:
        architecture: A name in timm's registry, or `my_file.my_network`.
        in_channels: Channels.
        image_size: Side of the images, or length of the sequences.
    """
    return (in_channels, *[image_size] * (1 if takes_sequences(architecture) else 2))


def _registered(architecture: str) -> str:
    if timm.is_model(architecture):
        return architecture
    module, _, name = architecture.rpartition(".")
    if module and not timm.is_model(architecture.split(".")[0]):
        try:
            import_named(module)
        except ModuleNotFoundError as error:
            raise UserError(f"`model.architecture` {architecture}: there is no module {error.name!r}") from None
        # not any network of that name: torchvision.models.resnet18 is not timm's resnet18
        package = module.split(".")[0]
        if timm.is_model(name) and timm.model_entrypoint(name).__module__.split(".")[0] == package:
            return name
        raise UserError(f"`model.architecture` {architecture}: {module} does not @register_model a function {name!r}")
    hint = did_you_mean(architecture, timm.list_models()) or "; `lightning-cnn list architectures` shows all"
    raise UserError(f"unknown `model.architecture` {architecture!r}{hint}")


def _create(
    name: str, num_classes: int, in_channels: int, image_size: int, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    try:
        return _build(name, num_classes, in_channels, image_size, pretrained, options)
    except TypeError as error:
        raise UserError(f"`model.architecture` {name} does not take these options ({error})") from None
    except REFUSALS as error:
        if "pretrained tag" in str(error):
            hint = did_you_mean(name, timm.list_pretrained(f"{name.split('.')[0]}.*"))
            raise UserError(f"unknown `model.architecture` {name!r}{hint}") from None
        if pretrained and "retrained" in str(error):
            raise UserError(f"there are no pretrained weights for {name}: drop `model.pretrained`") from None
        if options and _takes(name, num_classes, in_channels, image_size, {}):
            raise UserError(f"`model.architecture` {name} does not take these options ({_first_line(error)})") from None
        size = _size_that_fits(name, num_classes, in_channels, image_size, options)
        if size is None:
            raise
        raise UserError(_size_message(name, image_size, size, error)) from None
    except OSError as error:
        raise UserError(
            f"the weights of {name} can't be loaded ({_first_line(error)}): without a network, "
            "name a file with `model.weights`"
        ) from None


def _build(
    name: str, num_classes: int, in_channels: int, image_size: int, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    arguments = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": in_channels, **options}
    try:  # timm does not tell which of its networks are built for one size
        network: nn.Module = timm.create_model(name, img_size=image_size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        network = timm.create_model(name, **arguments)
    return network


def _filled(
    network: nn.Module,
    name: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    options: dict[str, Any],
    weights: Weights,
) -> nn.Module:
    """The network with weights of a file: by timm, which adapts the first and the last layer to the task."""
    config = getattr(network, "pretrained_cfg", None)
    try:
        with loading() as said:
            if config:
                changes = {"pretrained_cfg_overlay": overlay(weights.state, config)}
                network = _build(name, num_classes, in_channels, image_size, True, {**options, **changes})
                network.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr, operator]
            else:
                network.load_state_dict(weights.state)
    except (*REFUSALS, KeyError) as error:
        lines = str(error).strip().splitlines()
        reason = shorten(lines[min(1, len(lines) - 1)], 160, placeholder=" ...").rstrip(".")
        raise UserError(
            f"the weights in {weights.path} are not those of {name} ({reason}): name its own file"
        ) from None
    check_loaded(network, said, name, weights.path)
    return network


def _trial(network: nn.Module, shape: tuple[int, ...]) -> object:
    """What the network gives for one input."""
    training = network.training
    try:
        with torch.no_grad():
            return network.eval()(torch.zeros(1, *shape))
    finally:
        network.train(training)


def _takes(name: str, num_classes: int, in_channels: int, image_size: int, options: dict[str, Any]) -> bool:
    """Whether a network can be made and takes such images."""
    try:
        network = _build(name, num_classes, in_channels, image_size, False, options)
        _trial(network, input_shape(name, in_channels, image_size))
    except REFUSALS:
        return False
    return True


def _size_that_fits(
    name: str, num_classes: int, in_channels: int, image_size: int, options: dict[str, Any]
) -> int | None:
    """The next larger size of images that the network takes."""
    larger = (size for size in SIZES if size > image_size)
    return next((size for size in larger if _takes(name, num_classes, in_channels, size, options)), None)


def _size_message(name: str, image_size: int, size: int | None, error: Exception) -> str:
    what, option = f"images of {image_size}x{image_size}", "`data.image_size`"
    if takes_sequences(name):
        what, option, size = f"windows of {image_size} values", "`data.lags`", None
    cure = f"try another {option}" if size is None else f"try {option} {size}"
    return f"{what} don't fit {name} ({_first_line(error)}): {cure}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
