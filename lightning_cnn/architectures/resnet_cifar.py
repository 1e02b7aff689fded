"""Residual networks for small images, and the same networks without shortcuts."""

from itertools import pairwise
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.architectures.classifier import Classifier, build, config


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization, and a shortcut without parameters.

    Where the size is halved, the shortcut takes every second pixel and pads the new channels with zeros (option A of
    the paper).

    Args:
        in_chans: Input channels.
        out_chans: Output channels; if they exceed the input channels, height and width are halved.
        residual: Whether there is a shortcut.
    """

    def __init__(self, in_chans: int, out_chans: int, residual: bool) -> None:
        super().__init__()
        self.stride = 1 if in_chans == out_chans else 2
        self.new_maps = out_chans - in_chans
        self.residual = residual
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_chans)
        self.relu1 = nn.ReLU()  # layers, not functions, so that guided backpropagation finds them
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_chans)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chans, height, width)` to `(batch, out_chans, height / stride, width / stride)`."""
        outputs: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.residual:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            outputs = outputs + F.pad(shortcut, (0, 0, 0, 0, 0, self.new_maps))
        final: Tensor = self.relu2(outputs)
        return final


class ResNetCifar(Classifier):
    """6n + 2 layers: a convolution, three stages of n blocks with 16, 32 and 64 channels, and a linear head.

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016), section 4.2.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels.
        blocks: Blocks in each stage, the paper's n.
        residual: Whether there are shortcuts; without them it is the paper's "plain" network.
    """

    def __init__(
        self, num_classes: int = 10, in_chans: int = 3, img_size: int = 32, blocks: int = 3, residual: bool = True
    ) -> None:
        channels = [16] + [16] * blocks + [32] * blocks + [64] * blocks
        stages = [BasicBlock(before, after, residual) for before, after in pairwise(channels)]
        stem = [nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        layers = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(layers, in_chans, img_size, num_classes)
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


NAMES = ("resnet20_cifar", "resnet56_cifar", "plain20_cifar", "plain56_cifar")
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, config(10, (3, 32, 32), "features.0")))


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """The paper's ResNet-20 for CIFAR-10 (269,722 parameters)."""
    return build(ResNetCifar, "resnet20_cifar", pretrained, kwargs, blocks=3, residual=True)


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """The paper's ResNet-56 for CIFAR-10 (853,018 parameters)."""
    return build(ResNetCifar, "resnet56_cifar", pretrained, kwargs, blocks=9, residual=True)


@register_model
def plain20_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """ResNet-20 without its shortcuts, the paper's plain network (269,722 parameters)."""
    return build(ResNetCifar, "plain20_cifar", pretrained, kwargs, blocks=3, residual=False)


@register_model
def plain56_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """ResNet-56 without its shortcuts, which the paper finds worse than plain20_cifar (853,018 parameters)."""
    return build(ResNetCifar, "plain56_cifar", pretrained, kwargs, blocks=9, residual=False)
