"""LeNet5: the simplified network of the book, and the one of the 1998 paper."""

import math
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras, output_width

# LeCun et al. 1998, table I: which of the six S2 maps each of the sixteen C3 maps sees
CONNECTION_TABLE = (
    *[tuple((first + k) % 6 for k in range(3)) for first in range(6)],
    *[tuple((first + k) % 6 for k in range(4)) for first in range(6)],
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class LeNet5(Classifier):
    """The simplified LeNet5 of the book; 303,626 parameters on MNIST.

    It differs from the paper in four ways: all feature maps are connected, average pooling has no parameters (and
    stride 1 in the first layer), a ReLU follows the first convolution, and the 28x28 images are not padded.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 19.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, img_size: int = 28) -> None:
        layers = nn.Sequential(
            nn.Conv2d(in_chans, 6, 5),
            nn.ReLU(),
            nn.AvgPool2d(2, stride=1),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5),
            nn.Tanh(),
            nn.Flatten(),
        )
        features = nn.Sequential(layers, nn.Linear(output_width(layers, in_chans, img_size), 84), nn.Tanh())
        super().__init__(features, in_chans, img_size, num_classes)
        self.apply(init_keras)


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x / 3), so that f(1) = 1 and f(-1) = -1 (LeCun et al. 1998, appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise; returns the shape of the input."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class TrainablePool(nn.Module):
    """Sum over 2x2 windows, with a learned coefficient and bias for each channel (1998, section II.B).

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to `(batch, channels, height / 2, width / 2)`."""
        return F.avg_pool2d(x, 2) * 4 * self.weight + self.bias


class TableConv2d(nn.Module):
    """A 5x5 convolution in which each output channel is connected to some of the input channels (1998, layer C3).

    Args:
        in_channels: Number of input channels.
        table: The input channels of each output channel.
    """

    def __init__(self, in_channels: int, table: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        seen = torch.zeros(len(table), in_channels, 1, 1)
        for number, maps in enumerate(table):
            seen[number, list(maps)] = 1
        self.seen: Tensor
        self.register_buffer("seen", seen, persistent=False)  # float: the averaging of weights takes nothing else
        self.weight = nn.Parameter(torch.empty(int(seen.sum()), 5, 5))  # one kernel a connection, none for the rest
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, height, width)` to `(batch, len(table), height - 4, width - 4)`."""
        kernel = self.weight.new_zeros(*self.seen.shape[:2], 5, 5).masked_scatter(self.seen.bool(), self.weight)
        return F.conv2d(x, kernel, self.bias)


class LeNet5Paper(Classifier):
    """LeNet5 as published; 60,850 parameters with a dense output layer in place of the fixed RBF units.

    Layers: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164, output 850. The images are 32x32: MNIST's 28x28
    with two pixels of background on each side.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998),
    section II.B and appendix A.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 32.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, img_size: int = 32) -> None:
        layers = nn.Sequential(
            nn.Conv2d(in_chans, 6, 5),  # C1
            ScaledTanh(),
            TrainablePool(6),  # S2
            ScaledTanh(),
            TableConv2d(6, CONNECTION_TABLE),  # C3
            ScaledTanh(),
            TrainablePool(16),  # S4
            ScaledTanh(),
            nn.Conv2d(16, 120, 5),  # C5
            ScaledTanh(),
            nn.Flatten(),
        )
        for layer in layers:
            _init_paper(layer)
        features = nn.Sequential(layers, nn.Linear(output_width(layers, in_chans, img_size), 84), ScaledTanh())  # F6
        super().__init__(features, in_chans, img_size, num_classes)
        _init_paper(features[1])
        _init_paper(self.head)


def _init_paper(layer: nn.Module) -> None:
    """Uniform weights within 2.4 / fan-in (1998, appendix A), zero biases."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        bound = 2.4 / math.prod(layer.weight.shape[1:])
        nn.init.uniform_(layer.weight, -bound, bound)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, TableConv2d):
        maps = layer.seen.sum((1, 2, 3)).long()
        fan_in = 25 * maps.repeat_interleave(maps)
        with torch.no_grad():
            layer.weight.copy_((torch.rand_like(layer.weight) * 2 - 1) * 2.4 / fan_in[:, None, None])


default_cfgs = generate_default_cfgs(
    {"lenet5": config(10, (1, 28, 28), "features.0.0"), "lenet5_1998": config(10, (1, 32, 32), "features.0.0")}
)


@register_model
def lenet5(pretrained: bool = False, **kwargs: Any) -> LeNet5:
    """LeNet5 as simplified in the book (303,626 parameters)."""
    return build(LeNet5, "lenet5", pretrained, kwargs)


@register_model
def lenet5_1998(pretrained: bool = False, **kwargs: Any) -> LeNet5Paper:
    """LeNet5 as published in 1998: connection table, trainable pooling, scaled tanh (60,850 parameters, 32x32)."""
    return build(LeNet5Paper, "lenet5_1998", pretrained, kwargs)
