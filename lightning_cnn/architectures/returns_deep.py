"""Deeper networks for windows of monthly returns: causal and dilated, and residual."""

from itertools import pairwise
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras
from lightning_cnn.architectures.returns import LagsAndRest


class CausalBlock(nn.Module):
    """Two causal, dilated convolutions with a shortcut.

    Args:
        in_chans: Input channels.
        out_chans: Output channels.
        kernel_size: Length of the kernels.
        dilation: Months between two values of a kernel.
        drop_rate: Probability of dropping a value.
    """

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int, dilation: int, drop_rate: float) -> None:
        super().__init__()
        self.padding = (kernel_size - 1) * dilation
        self.conv1 = nn.Conv1d(in_chans, out_chans, kernel_size, dilation=dilation)
        self.conv2 = nn.Conv1d(out_chans, out_chans, kernel_size, dilation=dilation)
        self.drop = nn.Dropout(drop_rate)
        self.shortcut = nn.Identity() if in_chans == out_chans else nn.Conv1d(in_chans, out_chans, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chans, months)` to `(batch, out_chans, months)`, the oldest month first."""
        outputs = x
        for conv in (self.conv1, self.conv2):
            outputs = self.drop(F.relu(conv(F.pad(outputs, (self.padding, 0)))))
        return F.relu(outputs + self.shortcut(x))


class LastMonth(nn.Module):
    """Applies layers to the lags in order of time, and returns their output for the latest month."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Lags `(batch, in_chans, lags)`, the most recent first, to `(batch, channels)`."""
        outputs: Tensor = self.layers(x.flip(-1))
        return outputs[..., -1]


class ReturnsTCN(Classifier):
    """A temporal convolutional network: the dilation doubles until the receptive field covers all lags.

    The months of the year go to the output directly.

    Source: Bai, Kolter and Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
    Sequence Modeling" (2018), section 3; without its weight normalization.

    Args:
        num_classes: Number of outputs.
        in_chans: Series in the window.
        img_size: Length of the window.
        lags: Number of lags in the window.
        channels: Channels of each block.
        kernel_size: Length of the kernels in months, at least 2.
        drop_rate: Probability of dropping a value after each convolution.
    """

    def __init__(
        self,
        num_classes: int = 1,
        in_chans: int = 1,
        img_size: int = 36,
        lags: int = 24,
        channels: int = 16,
        kernel_size: int = 3,
        drop_rate: float = 0.1,
    ) -> None:
        if kernel_size < 2:
            raise ValueError(f"kernel_size {kernel_size}: it must be at least 2")
        blocks: list[nn.Module] = []
        seen, dilation, maps = 1, 1, in_chans
        while seen < lags or not blocks:
            blocks.append(CausalBlock(maps, channels, kernel_size, dilation, drop_rate))
            seen += 2 * (kernel_size - 1) * dilation
            dilation, maps = 2 * dilation, channels
        super().__init__(LagsAndRest(LastMonth(*blocks), lags), in_chans, (img_size,), num_classes)
        self.apply(init_keras)


class ResidualBlock(nn.Module):
    """Two convolutions with batch normalization and a shortcut; where the channels increase, the length is halved.

    Args:
        in_chans: Input channels.
        out_chans: Output channels.
    """

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        stride = 1 if in_chans == out_chans else 2
        self.conv1 = nn.Conv1d(in_chans, out_chans, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm1d(out_chans)
        self.conv2 = nn.Conv1d(out_chans, out_chans, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm1d(out_chans)
        grown = nn.Sequential(nn.Conv1d(in_chans, out_chans, 1, stride, bias=False), nn.BatchNorm1d(out_chans))
        self.shortcut = nn.Identity() if in_chans == out_chans else grown

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chans, months)` to `(batch, out_chans, months / stride)`."""
        outputs = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(outputs + self.shortcut(x))


class ReturnsResNet(Classifier):
    """A small residual network over the lags; the months of the year go to the output directly.

    Source: the residual network for time series of Wang, Yan and Oates, "Time Series Classification from Scratch with
    Deep Neural Networks" (2017), section 2.3, made small. It keeps the positions of the lags instead of global average
    pooling, since last month's return and that of a year ago mean different things.

    Args:
        num_classes: Number of outputs.
        in_chans: Series in the window.
        img_size: Length of the window.
        lags: Number of lags in the window.
        widths: Channels of each block.
        drop_rate: Probability of dropping a feature.
    """

    def __init__(
        self,
        num_classes: int = 1,
        in_chans: int = 1,
        img_size: int = 36,
        lags: int = 24,
        widths: tuple[int, ...] = (16, 16, 32),
        drop_rate: float = 0.2,
    ) -> None:
        stem = [nn.Conv1d(in_chans, widths[0], 3, 1, 1, bias=False), nn.BatchNorm1d(widths[0]), nn.ReLU()]
        blocks = [ResidualBlock(before, after) for before, after in pairwise((widths[0], *widths))]
        layers = nn.Sequential(*stem, *blocks, nn.Flatten(), nn.Dropout(drop_rate))
        super().__init__(LagsAndRest(layers, lags), in_chans, (img_size,), num_classes)
        self.apply(init_keras)


default_cfgs = generate_default_cfgs(
    {
        "returns_tcn": config(1, (1, 1, 36), "features.layers.layers.0.conv1"),
        "returns_resnet": config(1, (1, 1, 36), "features.layers.0"),
    }
)


@register_model
def returns_tcn(pretrained: bool = False, **kwargs: Any) -> ReturnsTCN:
    """Causal, dilated convolutions over monthly returns."""
    return build(ReturnsTCN, "returns_tcn", pretrained, kwargs)


@register_model
def returns_resnet(pretrained: bool = False, **kwargs: Any) -> ReturnsResNet:
    """A small residual network over monthly returns."""
    return build(ReturnsResNet, "returns_resnet", pretrained, kwargs)
