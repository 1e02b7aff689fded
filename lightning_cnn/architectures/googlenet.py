"""GoogLeNet with Inception modules, and with naive modules, which show what the 1x1 convolutions save."""

from collections import OrderedDict
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras

# Szegedy et al. 2015, table 1. Of each module the number of maps: 1x1; before 3x3, 3x3; before 5x5, 5x5; after pooling
MODULES = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = ("inception3a", "inception4a", "inception5a")
AUXILIARY_AFTER = ("inception4a", "inception4d")


def convolution(in_chans: int, maps: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size at stride 1, followed by a ReLU."""
    return nn.Sequential(nn.Conv2d(in_chans, maps, kernel, stride, kernel // 2), nn.ReLU())


class Inception(nn.Module):
    """Convolutions of three sizes and pooling in parallel; 1x1 convolutions reduce the number of channels.

    Source: Szegedy et al., "Going Deeper with Convolutions" (2015), figure 2b.

    Args:
        in_chans: Input channels.
        ones: Output channels of the 1x1 convolution.
        reduced_threes: Channels to which a 1x1 convolution reduces the input of the 3x3 convolution.
        threes: Output channels of the 3x3 convolution.
        reduced_fives: The same for the 5x5 convolution.
        fives: Output channels of the 5x5 convolution.
        pooled: Channels to which a 1x1 convolution reduces the pooled input.
    """

    def __init__(
        self, in_chans: int, ones: int, reduced_threes: int, threes: int, reduced_fives: int, fives: int, pooled: int
    ) -> None:
        super().__init__()
        self.out_chans = ones + threes + fives + pooled
        self.branches = nn.ModuleList(
            [
                convolution(in_chans, ones, 1),
                nn.Sequential(convolution(in_chans, reduced_threes, 1), convolution(reduced_threes, threes, 3)),
                nn.Sequential(convolution(in_chans, reduced_fives, 1), convolution(reduced_fives, fives, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(in_chans, pooled, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chans, height, width)` to `(batch, out_chans, height, width)`."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class NaiveInception(Inception):
    """The module without 1x1 reductions: all convolutions see all input channels, and pooling passes all of them on.

    Source: Szegedy et al. 2015, figure 2a.

    Args:
        in_chans: Input channels.
        ones: Output channels of the 1x1 convolution.
        reduced_threes: Ignored.
        threes: Output channels of the 3x3 convolution.
        reduced_fives: Ignored.
        fives: Output channels of the 5x5 convolution.
        pooled: Ignored.
    """

    def __init__(
        self, in_chans: int, ones: int, reduced_threes: int, threes: int, reduced_fives: int, fives: int, pooled: int
    ) -> None:
        nn.Module.__init__(self)
        self.out_chans = ones + threes + fives + in_chans
        self.branches = nn.ModuleList(
            [
                convolution(in_chans, ones, 1),
                convolution(in_chans, threes, 3),
                convolution(in_chans, fives, 5),
                nn.MaxPool2d(3, 1, 1),
            ]
        )


class AuxiliaryPool(nn.Module):
    """Pools maps of any size to 4x4; those of 14x14 as the paper does, by 5x5 windows with stride 3."""

    def forward(self, maps: Tensor) -> Tensor:
        """The means of the windows, `(batch, channels, 4, 4)`."""
        return F.avg_pool2d(maps, 5, 3) if maps.shape[-2:] == (14, 14) else F.adaptive_avg_pool2d(maps, 4)


LAST = 6  # place of the layer that makes the logits in an auxiliary head


class AuxiliaryHead(nn.Sequential):
    """A classifier at a middle layer, which adds to the gradient in training (Szegedy et al. 2015, section 5).

    Args:
        in_chans: Input channels.
        num_classes: Number of classes.
    """

    def __init__(self, in_chans: int, num_classes: int) -> None:
        pool = AuxiliaryPool()
        dense = [nn.Flatten(), nn.Linear(128 * 4 * 4, 1024), nn.ReLU(), nn.Dropout(0.7)]
        super().__init__(pool, convolution(in_chans, 128, 1), *dense, nn.Linear(1024, num_classes))


class GoogLeNet(Classifier):
    """The winner of ImageNet 2014; 6,998,552 parameters for 1,000 classes without the auxiliary heads.

    In training mode it returns the logits of the head and of the auxiliary heads, otherwise those of the head alone.

    Source: Szegedy et al., "Going Deeper with Convolutions" (2015), table 1 and figure 3; Glorot initialization,
    since the paper names none.

    Args:
        num_classes: Number of classes; 0 removes the heads.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels.
        drop_rate: Probability of dropping a feature before the head.
        auxiliary: Whether to add the two auxiliary heads.
        module: The class of its modules.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        drop_rate: float = 0.4,
        auxiliary: bool = True,
        module: type[Inception] = Inception,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=convolution(in_chans, 64, 7, 2),
            pool1=nn.Sequential(_pool(), nn.LocalResponseNorm(5, alpha=1e-4)),
            conv2=nn.Sequential(convolution(64, 64, 1), convolution(64, 192, 3), nn.LocalResponseNorm(5, alpha=1e-4)),
        )
        maps = 192
        widths = {}
        for name, numbers in MODULES.items():
            if name in POOL_BEFORE:
                layers[f"pool_{name}"] = _pool()
            block = module(maps, *numbers)
            layers[name], maps = block, block.out_chans
            widths[name] = maps
        layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "dropout": nn.Dropout(drop_rate)}
        super().__init__(nn.Sequential(layers), in_chans, img_size, num_classes)
        self._auxiliary_inputs = {name: widths[name] for name in AUXILIARY_AFTER} if auxiliary else {}
        self.auxiliary = nn.ModuleDict()
        self.reset_classifier(num_classes)
        self.apply(init_keras)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the heads with new ones.

        Args:
            num_classes: Size of the output; 0 removes the heads.
            global_pool: Ignored; part of timm's interface.
        """
        super().reset_classifier(num_classes)
        if hasattr(self, "auxiliary"):  # not yet while the base class is made
            inputs = self._auxiliary_inputs if num_classes else {}
            self.auxiliary = nn.ModuleDict({name: AuxiliaryHead(maps, num_classes) for name, maps in inputs.items()})

    def unused_weights(self) -> set[str]:
        """Names of the weights of the auxiliary heads, which a network without them has no use for."""
        names = AuxiliaryHead(1, 1).state_dict()
        return {f"auxiliary.{layer}.{name}" for layer in AUXILIARY_AFTER for name in names}

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """Logits `(batch, num_classes)` of images; in training a tuple of them, the head's first."""
        if not (self.training and self.auxiliary):
            return super().forward(x)
        side = []
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in self.auxiliary:
                side.append(self.auxiliary[name](x))
        return (self.head(x), *side)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


HEADS = ("head", *(f"auxiliary.{name}.{LAST}" for name in AUXILIARY_AFTER))
default_cfgs = generate_default_cfgs(
    dict.fromkeys(
        ("googlenet", "googlenet_naive"), config(1000, (3, 224, 224), "features.conv1.0") | {"classifier": HEADS}
    )
)


@register_model
def googlenet(pretrained: bool = False, **kwargs: Any) -> GoogLeNet:
    """GoogLeNet of the 2015 paper (6,998,552 parameters, and 6.4 million in auxiliary heads for training)."""
    return build(GoogLeNet, "googlenet", pretrained, kwargs)


@register_model
def googlenet_naive(pretrained: bool = False, **kwargs: Any) -> GoogLeNet:
    """GoogLeNet without the 1x1 convolutions that reduce parameters and operations, for comparison."""
    return build(GoogLeNet, "googlenet_naive", pretrained, kwargs, module=NaiveInception)
