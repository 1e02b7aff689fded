"""What the filters of a network are, how they answer to an image, and what they look for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_cnn.architectures.arithmetic import outputs_of
from lightning_cnn.errors import UserError, did_you_mean, first_line
from lightning_cnn.modules.network import REFUSALS

GRAY, NOISE = 128.0, 20.0  # pixels of the images that the ascent begins with, and the width of their noise
TINY = 1e-18  # of a gradient: the squares of smaller ones vanish in single precision
BATCH_PIXELS = 2**17  # of the images that are changed at the same time: more are no faster on a CPU


def convolutions(network: nn.Module) -> dict[str, nn.Conv1d | nn.Conv2d]:
    """The convolutions of a network by name, in the order of its modules.

    Raises:
        UserError: If there is none.
    """
    found = {name: each for name, each in network.named_modules() if isinstance(each, nn.Conv1d | nn.Conv2d)}
    if not found:
        raise UserError(f"{type(network).__name__} has no convolutions: use another network")
    return found


def layer_named(network: nn.Module, name: str) -> nn.Module:
    """A layer of a network.

    Raises:
        UserError: If there is none of that name.
    """
    layers: dict[str, nn.Module] = {each: layer for each, layer in network.named_modules() if each}
    if name in layers:
        return layers[name]
    hint = did_you_mean(name, layers) or f"; its first convolution is {next(iter(convolutions(network)))}"
    raise UserError(f"unknown `layer` {name!r}{hint}")


def activation_maps(network: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """What a layer returns for images, one map for each of its filters.

    Args:
        network: The network.
        layer: One of its layers.
        images: `(n, channels, height, width)`, scaled as the network wants them. They may have any size that the
            layers down to this one take.

    Returns:
        `(n, filters, height, width)`.

    Raises:
        UserError: If the layer returns something else, or the images don't fit.
    """
    name = next(name for name, each in network.named_modules() if each is layer)
    try:
        maps = outputs_of(network, layer, images)
    except REFUSALS as error:
        side = images.shape[-1]
        raise UserError(f"`layer` {name} gives no maps of images of {side}x{side} ({first_line(error)})") from None
    if maps.ndim != 4:
        raise UserError(f"`layer` {name} returns {tuple(maps.shape[1:])}, no maps: choose a convolution")
    return maps


@dataclass(frozen=True)
class Ascent:
    """The recipe of activation maximization.

    Source: the book's notebook on filters, after Erhan, Bengio, Courville and Vincent, "Visualizing higher-layer
    features of a deep network" (2009).

    Attributes:
        size: Side of the images in pixels.
        steps: Number of steps.
        step_size: Change of a step: root mean square over the pixels, which range from 0 to 255.
        seed: Seed of the noise.
    """

    size: int = 128
    steps: int = 20
    step_size: float = 1.0
    seed: int = 0

    def noise(self, count: int, channels: int) -> Tensor:
        """Images to begin with, noise around gray: `(count, channels, size, size)`, 118 to 138.

        The image of a filter is the same however many follow.
        """
        generator = torch.Generator().manual_seed(self.seed)
        return (torch.rand(count, channels, self.size, self.size, generator=generator) - 0.5) * NOISE + GRAY

    def run(
        self, mean_activations: Callable[[Tensor, Tensor], Tensor], images: Tensor, filters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Changes images so that each raises the mean activation of its filter.

        Args:
            mean_activations: Mean activation of a filter for each image, `(n,)`, of images `(n, ...)` in pixels of 0 to
                255 and of filters `(n,)`.
            images: `(n, channels, size, size)`, where to begin.
            filters: The filter of each image, `(n,)`.

        Returns:
            The images, and their mean activations `(n,)`.
        """
        for _ in range(self.steps):
            images = images.detach().requires_grad_()
            # no image has a part in the activations of another
            (gradient,) = torch.autograd.grad(mean_activations(images, filters).sum(), images)
            size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
            images = images.detach() + self.step_size * gradient / size.clamp_min(TINY)
        with torch.no_grad():
            return images, mean_activations(images, filters)


def wanted_images(
    network: nn.Module, layer: nn.Module, scale: Callable[[Tensor], Tensor], channels: int, first: int, ascent: Ascent
) -> tuple[Tensor, Tensor]:
    """Images that the first filters of a layer answer to most, many filters at a time.

    Args:
        network: The network, in evaluation mode.
        layer: The layer.
        scale: Pixels of 0 to 1 to what the network wants.
        channels: Channels of the images.
        first: Number of filters, at most; fewer where the layer has fewer.
        ascent: The recipe.

    Returns:
        `(filters, channels, size, size)` in pixels around 0 to 255, and the mean activation of each, `(filters,)`.

    Raises:
        UserError: If the layer gives no maps of images of that size.
    """
    device = next((each.device for each in network.parameters()), torch.device("cpu"))

    def mean_activations(images: Tensor, filters: Tensor) -> Tensor:
        maps = activation_maps(network, layer, scale(images / 255))
        return maps.mean((2, 3)).gather(1, filters[:, None])[:, 0]

    with torch.no_grad():
        blank = torch.full((1, channels, ascent.size, ascent.size), GRAY, device=device)
        count = min(first, activation_maps(network, layer, scale(blank / 255)).shape[1])
    frozen = [each for each in network.parameters() if each.requires_grad]
    for parameter in frozen:  # their gradients would take half of the time
        parameter.requires_grad_(False)
    try:
        at_once = max(1, BATCH_PIXELS // ascent.size**2)
        parts = zip(ascent.noise(count, channels).split(at_once), torch.arange(count).split(at_once), strict=True)
        done = [ascent.run(mean_activations, noise.to(device), filters.to(device)) for noise, filters in parts]
    finally:
        for parameter in frozen:
            parameter.requires_grad_()
    return torch.cat([images for images, _ in done]).cpu(), torch.cat([values for _, values in done]).cpu()


@torch.no_grad()
def maps_of_layers(network: nn.Module, layers: Mapping[str, nn.Module], image: Tensor) -> dict[str, Tensor]:
    """The maps of several layers for an image, in one pass.

    Args:
        network: The network, in evaluation mode.
        layers: Layers by name.
        image: `(1, channels, height, width)`, scaled as the network wants it.

    Returns:
        `(filters, height, width)` by name, of the layers that return maps.
    """
    found: dict[str, Tensor] = {}

    def keeping(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _layer, _inputs, outputs: found.update({name: outputs[0].cpu()})

    handles = [layer.register_forward_hook(keeping(name)) for name, layer in layers.items()]
    try:
        network(image)
    except REFUSALS as error:
        height, width = image.shape[-2:]
        raise UserError(
            f"the network does not take an image of {width}x{height} pixels ({first_line(error)}): resize it"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    return {name: maps for name, maps in found.items() if maps.ndim == 3}
