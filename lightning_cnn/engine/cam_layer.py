"""Which layer of a network the maps of Grad-CAM are those of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.notes import say

LEAST_SIDE = 4  # of the maps of the default layer
OTHERWISE = "use `method` integrated_gradients, occlusion or saliency"


@dataclass(frozen=True)
class Output:
    """What a layer gives for one image.

    Attributes:
        name: Of the layer.
        shape: Of its output.
        convolves: Whether it is a convolution over maps, not one whose filters are as large as these.
    """

    name: str
    shape: tuple[int, ...]
    convolves: bool

    @property
    def side(self) -> int:
        """The shorter side of its maps; 0 where it gives no maps."""
        return min(self.shape[2:]) if len(self.shape) == 4 else 0

    @property
    def size(self) -> str:
        """Height and width of its maps."""
        return "x".join(map(str, self.shape[2:]))


def default_layer(network: nn.Module, name: str, image: Tensor) -> str:
    """The last layer with maps of at least 4x4 for images of the network's size through which everything passes.

    Layers in one of several branches, as in a residual block, don't count. Where several end with the same output, such
    as a stage and its last block, it is the outermost. If convolutions with smaller maps follow it, a line says so.

    Args:
        network: The network, in evaluation mode.
        name: What to call it.
        image: `(1, channels, height, width)`, of the size of its images.

    Returns:
        The name of the layer.

    Raises:
        UserError: If it has no such layer, or its head does not see maps but tokens.
    """
    outputs = layer_outputs(network, image)
    large = [place for place, output in enumerate(outputs) if output.side >= LEAST_SIDE]
    for place in reversed(large):
        chosen, after = outputs[place], outputs[place + 1 :]
        if any(_are_tokens(network, output) for output in (chosen, *after)):
            raise UserError(f"the head of {name} sees tokens, not maps: {OTHERWISE}")
        if not _all_passes(network, chosen.name, image):
            continue
        if smaller := [output for output in after if output.convolves]:
            say(
                f"the maps of the last layers are too small ({smaller[-1].name}: {smaller[-1].size}): those of "
                f"{chosen.name} ({chosen.size}) are used; `layer` chooses others"
            )
        return chosen.name
    raise UserError(f"{name} has no layer with maps of at least {LEAST_SIDE}x{LEAST_SIDE}: {OTHERWISE}")


def check_layer(network: nn.Module, layer: str, image: Tensor) -> str:
    """The name of a layer that gives maps.

    Args:
        network: The network, in evaluation mode.
        layer: The name that was typed.
        image: `(1, channels, height, width)`, of the size of its images.

    Raises:
        UserError: If there is no such layer, or it gives no maps.
    """
    names = [name for name, _ in network.named_modules() if name]
    if layer not in names:
        raise UserError(f"`layer` {layer}: the network has no such layer{did_you_mean(layer, names) or _some(names)}")
    output = next((each for each in reversed(layer_outputs(network, image)) if each.name == layer), None)
    if output is None or output.side < 2 or _are_tokens(network, output):
        shape = "no output of its own" if output is None else f"an output of shape {output.shape[1:]}"
        raise UserError(f"`layer` {layer} has {shape}, expected maps (channels, height, width) of at least 2x2")
    return layer


def layer_outputs(network: nn.Module, image: Tensor) -> list[Output]:
    """What each layer gives for one image, in the order in which they are done; a layer that is used twice comes twice.

    Args:
        network: The network, in evaluation mode.
        image: `(1, channels, height, width)`.
    """
    found: list[Output] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                is_dense = isinstance(module, nn.Conv2d) and tuple(inputs[0].shape[2:]) == module.kernel_size
                found.append(Output(name, tuple(output.shape), isinstance(module, nn.Conv2d) and not is_dense))

        return hook

    hooks = [module.register_forward_hook(record(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _all_passes(network: nn.Module, layer: str, image: Tensor) -> bool:
    """Whether the network gives the same for another image, if this layer gives what it gave for the first one."""
    seen: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        seen.append(output)
        return seen[0].clone()  # what follows may work in place

    other = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    handle = network.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            first, second = network(image), network(other)
    finally:
        handle.remove()
    return bool(torch.allclose(first, second, rtol=1e-4, atol=1e-6 * float(first.abs().max())))


def _are_tokens(network: nn.Module, output: Output) -> bool:
    """Whether an output has the features of the head in its last dimension, as transformers do, not in the second."""
    width, shape = getattr(network, "num_features", None), output.shape
    return len(shape) in (3, 4) and shape[-1] == width and (len(shape) == 3 or shape[1] != width)


def _some(names: Sequence[str], most: int = 6) -> str:
    return f"; it has {', '.join(names[:most])}{' ...' * (len(names) > most)}"
