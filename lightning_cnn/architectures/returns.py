"""Networks for windows of monthly returns: lags, the most recent first, then a one-hot month where the data have it.

A window is a sequence `(batch, in_chans, img_size)`. In timm's configurations it is an image of height 1: `input_size`
is (1, 1, 36). Only `returns_picture` takes images.
"""

from collections import OrderedDict
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras
from lightning_cnn.architectures.ffnn import FFNN


class LagsAndRest(nn.Module):
    """Layers on the lags alone; the rest of the window is concatenated to their features unchanged.

    Args:
        layers: Maps lags `(batch, in_chans, lags)` to features `(batch, n)`.
        lags: Number of lags; the rest of the window are dummies, equal in all channels.
    """

    def __init__(self, layers: nn.Module, lags: int) -> None:
        super().__init__()
        self.layers = layers
        self.lags = lags

    def forward(self, x: Tensor) -> Tensor:
        """Features `(batch, n + length - lags)` of windows `(batch, in_chans, length)`."""
        if self.lags > x.shape[-1]:
            raise ValueError(f"{self.lags} lags exceed the length of the window")
        return torch.cat([self.layers(x[..., : self.lags]), x[:, 0, self.lags :]], 1)


class ConvReLUPool1d(nn.Conv1d):
    """A convolution with stride 1 and no padding, a ReLU, and max pooling over pairs.

    Equals `nn.Conv1d`, `nn.ReLU` and `nn.MaxPool1d(2)` except for the order of the output, and is faster on a CPU:
    max(a, b) = a + relu(b - a), and b - a is the convolution of the differences, so that two matrix products are
    enough. If both values of a pair are equal, the first gets the gradient, as in max pooling.

    Args:
        in_channels: Channels of the sequences.
        out_channels: Filters.
        kernel_size: Length of each filter.
    """

    bias: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences `(batch, (length - kernel_size + 1) // 2, out_channels)` of `(batch, in_channels, length)`."""
        size = self.kernel_size[0]
        weight = self.weight.flatten(1).t().contiguous()  # as it is, its gradient would take five times as long
        differences = x.diff().unfold(2, size, 2).movedim(1, 2).flatten(2)
        firsts = x.unfold(2, size, 2).movedim(1, 2)[:, : differences.shape[1]].flatten(2)
        return (firsts @ weight).add_(self.bias).add_((differences @ weight).relu_()).relu_()


class ReturnsCNN(Classifier):
    """A convolution over the window, a pooling layer and one output; 673 parameters, 481 with 24 lags alone.

    As in the book, the kernel slides over the whole window: at the border it mixes the oldest returns with January's
    dummy, and the pooling takes the maximum of two months' dummies. `split` avoids both.

    Source: the book's notebook on monthly returns, first edition.

    Args:
        num_classes: Number of outputs.
        in_chans: Series in the window.
        img_size: Length of the window.
        lags: Number of lags in the window; used by `split` only.
        filters: Filters of the convolution.
        split: Whether the convolution sees the lags only, and the months go to the output directly.
        head_relu: Whether a ReLU follows the output, as in the book. The sigmoid then never returns less than 0.5, and
            an output that is negative for all windows gets no gradient.
    """

    def __init__(
        self,
        num_classes: int = 1,
        in_chans: int = 1,
        img_size: int = 36,
        lags: int = 24,
        filters: int = 32,
        split: bool = False,
        head_relu: bool = False,
    ) -> None:
        layers: nn.Module = nn.Sequential(
            OrderedDict(conv_pool=ConvReLUPool1d(in_chans, filters, 3), flatten=nn.Flatten())
        )
        super().__init__(LagsAndRest(layers, lags) if split else layers, in_chans, (img_size,), num_classes)
        self.head_relu = head_relu
        self.apply(init_keras)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits `(batch, num_classes)` of features; with `pre_logits` the features as they are."""
        outputs = super().forward_head(x, pre_logits)
        return F.relu(outputs) if self.head_relu and not pre_logits else outputs


class ReturnsPicture(Classifier):
    """Two convolutions and a dense layer on an image of 15 indicators over 15 periods; 55,041 parameters.

    Source: CNN-TA of Sezer and Ozbayoglu, "Algorithmic Financial Trading with Deep Convolutional Neural Networks: Time
    Series to Image Conversion Approach" (2018), with the layer sizes of the book's second edition.

    Args:
        num_classes: Number of outputs.
        in_chans: Channels of the image.
        img_size: Number of indicators, and of periods.
    """

    def __init__(self, num_classes: int = 1, in_chans: int = 1, img_size: int = 15) -> None:
        convolutions = [nn.Conv2d(in_chans, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
        dense = [nn.Linear(32 * (img_size // 2) ** 2, 32), nn.ReLU(), nn.Dropout(0.5)]
        layers = nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), *dense)
        super().__init__(layers, in_chans, img_size, num_classes)
        self.apply(init_keras)


class ReturnsFFNN(FFNN):
    """Two hidden layers of 64 ReLU units; 7,105 parameters with 24 lags, 12 months and 8 years.

    The book's count implies 44 inputs: 44 x 64 + 64, 64 x 64 + 64, 64 + 1. Without the years the network has 6,593.

    Args:
        num_classes: Number of outputs.
        in_chans: Series in the window.
        img_size: Length of the window.
        widths: Units of each hidden layer.
        drop_rate: Probability of dropping a hidden unit.
    """

    def __init__(
        self,
        num_classes: int = 1,
        in_chans: int = 1,
        img_size: int = 44,
        widths: tuple[int, ...] = (64, 64),
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, in_chans, (img_size,), widths, drop_rate)


default_cfgs = generate_default_cfgs(
    {
        "returns_cnn": config(1, (1, 1, 36), "features.conv_pool"),
        "returns_cnn_split": config(1, (1, 1, 36), "features.layers.conv_pool"),
        "returns_picture": config(1, (1, 15, 15), "features.0"),
        "returns_ffnn": config(1, (1, 1, 44), None),
    }
)


@register_model
def returns_cnn(pretrained: bool = False, **kwargs: Any) -> ReturnsCNN:
    """The book's network for windows of 24 monthly returns and 12 months (673 parameters)."""
    return build(ReturnsCNN, "returns_cnn", pretrained, kwargs)


@register_model
def returns_cnn_split(pretrained: bool = False, **kwargs: Any) -> ReturnsCNN:
    """returns_cnn with a convolution on the lags only (493 parameters)."""
    return build(ReturnsCNN, "returns_cnn_split", pretrained, kwargs, split=True)


@register_model
def returns_picture(pretrained: bool = False, **kwargs: Any) -> ReturnsPicture:
    """CNN-TA for images of 15 indicators over 15 periods (55,041 parameters)."""
    return build(ReturnsPicture, "returns_picture", pretrained, kwargs)


@register_model
def returns_ffnn(pretrained: bool = False, **kwargs: Any) -> ReturnsFFNN:
    """44-64-64-1 feed-forward network, the book's baseline: 24 returns, 12 months, 8 years (7,105 parameters)."""
    return build(ReturnsFFNN, "returns_ffnn", pretrained, kwargs, "lags")
