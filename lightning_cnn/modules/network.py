"""Makes a network by name and says in one sentence why it can't."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import timm
import torch
from torch import Tensor, nn

import lightning_cnn.architectures  # noqa: F401  registers ours with timm
from lightning_cnn.errors import UserError, did_you_mean, first_line
from lightning_cnn.modules.pretrained import Weights, check_loaded, fitting, loading, overlay, reset_new_head
from lightning_cnn.user_code import import_named

# the arguments of a network that create_network passes itself
OWN_ARGUMENTS = {"num_classes", "in_chans", "img_size", "pretrained"}
# what create_network leaves to its own options, which read files of weights as plain data
READING = {"pretrained": "`model.pretrained`", "checkpoint_path": "`model.weights`"}
# what timm's networks raise at images that they can't take
REFUSALS = (RuntimeError, AssertionError, ValueError, ZeroDivisionError)
SIZES = (16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 160, 188, 192, 224, 256, 299, 384, 572)


def create_network(
    architecture: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    options: dict[str, Any] | None = None,
    weights: Weights | None = None,
    maps: bool | None = False,
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
        maps: Whether the network classifies each pixel; None for any.

    Returns:
        A network that maps `(batch, in_channels, image_size, image_size)`, or `(batch, in_channels, image_size)`, to
        `(batch, num_classes)`, with `maps` to `(batch, num_classes, height, width)`.

    Raises:
        UserError: If the name or an option is unknown, the weights can't be had or are another network's, the images
            are too small, or the network gives no logits.
    """
    options = dict(options or {})
    for option in (OWN_ARGUMENTS | READING.keys()) & options.keys():
        cure = f"use {READING[option]}" if option in READING else "it is set from the data; leave it out"
        raise UserError(f"`model.architecture_options` {option}: {cure}")
    wanted = _Wanted(_registered(architecture), num_classes, in_channels, image_size, options)
    network = wanted.make(pretrained)
    try:
        outputs = wanted.trial(network)
    except REFUSALS as error:
        raise UserError(wanted.misfit(error, wanted.size_that_fits())) from None
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    has_maps = len(shape) == 4
    expected = (1, num_classes, *shape[2:4]) if has_maps and maps is not False else (1, num_classes)
    if num_classes and (shape != expected or maps not in (None, has_maps)):
        what = "is no segmentation network" if maps else "is not a classifier with these options"
        wish = f"(1, {num_classes}, height, width)" if maps else expected
        raise UserError(
            f"`model.architecture` {wanted.name} {what}: its output for one image has shape {shape}, expected {wish}"
        )
    if weights is not None:
        network = wanted.filled(network, weights)
    if pretrained or weights is not None:
        reset_new_head(network)
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
    hint = did_you_mean(architecture, timm.list_models()) or "; `list_architectures()` shows all"
    raise UserError(f"unknown `model.architecture` {architecture!r}{hint}")


@dataclass(frozen=True)
class _Wanted:
    """A network to be made, by the arguments of `create_network`; its name is registered."""

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    options: dict[str, Any]

    def make(self, pretrained: bool) -> nn.Module:
        """The network.

        Raises:
            UserError: If it can't be made.
        """
        name = self.name
        try:
            return self.build(pretrained)
        except TypeError as error:
            raise UserError(f"`model.architecture` {name} does not accept these options ({error})") from None
        except REFUSALS as error:
            if "pretrained tag" in str(error):
                hint = did_you_mean(name, timm.list_pretrained(f"{name.split('.')[0]}.*"))
                raise UserError(f"unknown `model.architecture` {name!r}{hint}") from None
            if pretrained and "retrained" in str(error):
                raise UserError(f"there are no pre-trained weights for {name}: remove `model.pretrained`") from None
            if self.options and replace(self, options={}).fits():
                reason = first_line(error)
                raise UserError(f"`model.architecture` {name} does not accept these options ({reason})") from None
            size = self.size_that_fits()
            if size is None:
                raise
            raise UserError(self.misfit(error, size)) from None
        except OSError as error:
            raise UserError(
                f"the weights of {name} can't be loaded ({first_line(error)}): without network access, use "
                "`model.weights` FILE"
            ) from None

    def build(self, pretrained: bool = False, **more: Any) -> nn.Module:
        arguments = {"pretrained": pretrained, "num_classes": self.num_classes, "in_chans": self.in_channels}
        arguments |= {**self.options, **more}
        try:  # timm does not tell which of its networks are built for one size
            network: nn.Module = timm.create_model(self.name, img_size=self.image_size, **arguments)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            network = timm.create_model(self.name, **arguments)
        return network

    def filled(self, network: nn.Module, weights: Weights) -> nn.Module:
        """The network with weights of a file: by timm, which adapts the first and the last layer to the task."""
        config, weights = getattr(network, "pretrained_cfg", None), weights.named_as(network.state_dict())
        try:
            with loading() as said:
                if config:
                    network = self.build(True, pretrained_cfg_overlay=fitting(overlay(weights.state, config), network))
                    network.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr, operator]
                else:
                    network.load_state_dict(weights.state)
        except (*REFUSALS, KeyError) as error:
            lines = str(error).strip().splitlines()
            reason = shorten(lines[min(1, len(lines) - 1)], 160, placeholder=" ...").rstrip(".")
            raise weights.not_of(self.name, reason) from None
        unused: Collection[str] = ()
        if self.options.get("features_only"):  # which timm builds without the last layers
            unused = replace(self, options={}).build().state_dict().keys()
        check_loaded(network, said, self.name, weights, unused)
        return network

    def trial(self, network: nn.Module) -> object:
        """What the network gives for one input."""
        training = network.training
        try:
            with torch.no_grad():
                return network.eval()(torch.zeros(1, *input_shape(self.name, self.in_channels, self.image_size)))
        finally:
            network.train(training)

    def fits(self) -> bool:
        """Whether the network can be made and takes such images."""
        try:
            self.trial(self.build())
        except REFUSALS:
            return False
        return True

    def size_that_fits(self) -> int | None:
        """The next larger size of images that the network takes."""
        larger = (size for size in SIZES if size > self.image_size)
        return next((size for size in larger if replace(self, image_size=size).fits()), None)

    def misfit(self, error: Exception, better: int | None) -> str:
        """The message for images of the wrong size, where another is known to fit with that."""
        what, option = f"images of {self.image_size}x{self.image_size}", "`data.image_size`"
        if takes_sequences(self.name):
            what, option, better = f"windows of {self.image_size} values", "`data.lags`", None
        cure = f"try another {option}" if better is None else f"try {option} {better}"
        return f"{what} don't fit {self.name} ({first_line(error)}): {cure}"
