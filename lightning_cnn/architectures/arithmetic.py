"""Convolution arithmetic: sizes, receptive fields, costs, and convolution beside cross-correlation."""

import copy
import math
from bisect import bisect
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Mode = Literal["valid", "same", "full"]


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int | Mode = 0, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Side of the map that a convolution or a pooling returns.

    `"valid"` adds no padding, `"same"` as much as gives `ceil(size / stride)`, and `"full"` as much as lets the kernel
    overlap the image by a single pixel. A transposed convolution does the reverse, from the result to `size`.

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).

    Args:
        size: Side of the image in pixels.
        kernel: Side of the kernel.
        stride: Pixels from one place of the kernel to the next.
        padding: Pixels on each side, or the kind of padding.
        dilation: Pixels from one value of the kernel to the next.
        ceil_mode: Whether a last, incomplete window counts, as in torch's pooling layers.

    Raises:
        ValueError: If the kernel is larger than the padded image, or the padding is unknown.
    """
    reach = dilation * (kernel - 1) + 1  # pixels that the kernel spans
    if padding == "same":
        return math.ceil(size / stride)
    known = {"valid": 0, "full": reach - 1}
    if isinstance(padding, str) and padding not in known:
        raise ValueError(f"padding {padding!r}: expected a number, 'valid', 'same' or 'full'")
    added = known[padding] if isinstance(padding, str) else padding
    steps = size + 2 * added - reach
    places = (math.ceil(steps / stride) if ceil_mode else steps // stride) + 1
    if places < 1:
        raise ValueError(f"a kernel that spans {reach} pixels is larger than an image of {size + 2 * added}")
    if ceil_mode and (places - 1) * stride >= size + added:
        return places - 1  # no window begins behind the image
    return places


def convolve(images: Tensor, filters: Tensor, mode: Mode = "valid") -> Tensor:
    """The convolution of mathematics: `F.conv2d`, a cross-correlation, with filters turned by 180 degrees.

    Args:
        images: `(n, in_channels, height, width)`, or sequences `(n, in_channels, length)`.
        filters: `(out_channels, in_channels, ...)`, with as many sides as the images.
        mode: What is kept of the result, as in `scipy.signal.convolve`: where filter and image overlap wholly
            (`valid`), the middle of the size of the image (`same`), or all of it (`full`).

    Returns:
        `(n, out_channels, ...)`.
    """
    sides = filters.shape[2:]
    dims = tuple(range(2, filters.ndim))
    margins = [side - 1 for side in reversed(sides) for _ in range(2)]  # of `F.pad`: the last side first
    operation = F.conv1d if len(sides) == 1 else F.conv2d
    whole: Tensor = operation(F.pad(images, margins), filters.flip(dims))
    if mode == "full":
        return whole
    for dim, side in zip(dims, sides, strict=True):
        size = images.shape[dim]
        first, count = ((side - 1) // 2, size) if mode == "same" else (side - 1, size - side + 1)
        whole = whole.narrow(dim, first, count)
    return whole


@dataclass(frozen=True)
class Cost:
    """What layers cost.

    Attributes:
        parameters: Number of weights and biases.
        multiply_adds: Multiplications with a following addition, for one image; biases and activations are not counted.
    """

    parameters: int
    multiply_adds: int


def cost(layers: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Counts parameters and multiply-adds of a layer or a network.

    Create large layers with `device="meta"`: only shapes are computed.

    Args:
        layers: A layer or a network.
        shape: Shape of its input without the batch, such as `(3, 480, 640)`.
    """
    parameters = list(layers.parameters())
    image = torch.zeros(1, *shape, device=parameters[0].device if parameters else "cpu")
    training = layers.training
    # with gradients, and attention as plain products: not all fused kernels of the inference are counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layers.eval()(image)
    layers.train(training)
    return Cost(sum(each.numel() for each in parameters), counter.get_total_flops() // 2)


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that a value of a map depends on, along the height of an image or the length of a sequence.

    Attributes:
        size: Number of pixels.
        stride: Pixels from the field of a value to that of the next.
        offset: First pixel of the field of the first value; negative where it lies in the padding.
    """

    size: int
    stride: int
    offset: int


def receptive_field(network: nn.Module, layer: str, shape: tuple[int, ...]) -> ReceptiveField:
    """Finds the receptive field of a layer: which rows of an image, if they are NaN, make a row of its maps NaN.

    It works for every network that runs on the images up to the layer: branches, shortcuts, and pooling included.

    Args:
        network: The network, which is not changed.
        layer: Name of the layer, as in `network.named_modules()`.
        shape: Shape of the images, `(channels, height, width)`, or of the sequences, `(channels, length)`. The height
            must exceed the receptive field. The width may be smaller.

    Raises:
        ValueError: If the layer returns no maps, or the field reaches the border of such an image, so that its size
            can't be seen.
    """
    # in single precision, fast algorithms for convolutions mix neighboring fields
    network = copy.deepcopy(network).double().eval()
    images = torch.zeros(1, *shape, dtype=torch.float64)

    def reached(first: int, last: int) -> Tensor:
        changed = images.clone()
        changed[:, :, first : last + 1] = torch.nan
        maps = outputs_of(network, network.get_submodule(layer), changed)
        if maps.ndim != images.ndim:
            raise ValueError(f"{layer} returns {tuple(maps.shape[1:])}, no maps")
        return maps.isnan().transpose(0, 2).flatten(1).any(1)

    end = shape[1] - 1

    def first_row(place: int) -> int:
        return bisect(range(end + 1), False, key=lambda row: bool(reached(0, row)[place]))

    with torch.no_grad():
        rows = len(reached(0, end))
        middle = (rows - 1) // 2
        first = first_row(middle)
        last = bisect(range(end + 1), False, key=lambda row: not reached(row, end)[middle]) - 1
        if rows < 2 or first <= 0 or last >= end:
            raise ValueError(f"the receptive field of {layer} reaches the border of images of {shape[1]} pixels")
        stride = first_row(middle + 1) - first
    return ReceptiveField(last - first + 1, stride, first - middle * stride)


class _Reached(Exception):
    """Ends a forward pass where the rest is not needed."""


def outputs_of(network: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """What a layer returns for images; the layers behind it are not run, so that other sizes fit, too.

    Args:
        network: The network.
        layer: One of its modules.
        images: Its input.

    Raises:
        ValueError: If the network does not use the layer, or the layer returns something other than a tensor.
    """
    found: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: object, outputs: Tensor) -> None:
        found.append(outputs)
        raise _Reached

    handle = layer.register_forward_hook(stop)
    try:
        network(images)
    except _Reached:
        pass
    finally:
        handle.remove()
    if not found or not isinstance(found[0], Tensor):
        raise ValueError("the network does not use this layer" if not found else "the layer returns no tensor")
    return found[0]
