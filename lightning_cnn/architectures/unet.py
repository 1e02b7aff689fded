"""U-Net: as published, with valid convolutions, and with padded ones for images of any size."""

import math
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.architectures.classifier import build, config


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by a ReLU, with or without batch normalization between the two.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        padded: Whether the maps keep their size; otherwise they lose two pixels on each side.
        batch_norm: Whether to normalize the maps.
    """

    def __init__(self, inputs: int, outputs: int, padded: bool, batch_norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers.append(nn.Conv2d(channels, outputs, 3, padding=int(padded), bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU())
        super().__init__(*layers)


class UNet(nn.Module):
    """A contracting path of convolutions and pooling, and an expanding path that also sees the maps of each level.

    With valid convolutions the output is smaller than the image: by 184 pixels with four poolings, so that 572x572
    pixels become 388x388. Sides must then halve evenly at each pooling: 188, 204, 220, ... pixels with four poolings.
    With padded convolutions the output has the size of the image, which may be any: images are extended by their border
    to a multiple of 16.

    Source: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation" (2015),
    section 2 and figure 1. The paper has dropout at the end of the contracting path, without a rate (section 3.1).

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        width: Channels of the first level; each level has twice as many as the one before.
        depth: Number of poolings.
        padded: Whether the convolutions are padded.
        batch_norm: Whether the maps are normalized.
        drop_rate: Probability of dropping a value at the end of the contracting path.
    """

    def __init__(
        self,
        num_classes: int = 2,
        in_chans: int = 1,
        width: int = 64,
        depth: int = 4,
        padded: bool = False,
        batch_norm: bool = False,
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__()
        self.depth, self.padded = depth, padded
        self.multiple = int(2**depth)
        self.lost = 0 if padded else 12 * self.multiple - 8  # pixels of a side that the output lacks
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            DoubleConv(before, after, padded, batch_norm)
            for before, after in zip([in_chans, *widths], widths, strict=False)
        )
        self.drop = nn.Dropout(drop_rate)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(DoubleConv(2 * w, w, padded, batch_norm) for w in reversed(widths[:-1]))
        self.num_features = width
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)
        self.apply(_init_paper)

    def input_side(self, outputs: int) -> int:
        """The smallest side of an image whose output has at least so many pixels.

        Args:
            outputs: Side of the output in pixels.
        """
        if self.padded:
            return outputs
        return 4 + max(0, math.ceil((outputs - 4) / self.multiple)) * self.multiple + self.lost

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head, a 1x1 convolution, with a new one.

        Args:
            num_classes: Number of classes; 0 removes the head.
            global_pool: Ignored; part of timm's interface.
        """
        self.num_classes = num_classes
        self.head = nn.Conv2d(self.num_features, num_classes, 1) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Returns the head."""
        return self.head

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps `(batch, width, height', width')` of images `(batch, in_chans, height, width)`."""
        height, width = x.shape[-2:]
        if self.padded:
            x = pad_to(x, self.multiple)
        for side in () if self.padded else (height, width):
            if side <= self.lost or (side - self.lost - 4) % self.multiple:
                fits = self.input_side(side - self.lost)
                raise ValueError(f"sides of {side} pixels don't halve evenly; {fits} is the next that does")
        levels: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if number else x)
            levels.append(x)
        x = self.drop(levels.pop())
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = merge(torch.cat([center_crop(levels.pop(), x.shape[-2], x.shape[-1]), x], 1))
        return x[..., :height, :width] if self.padded else x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits `(batch, num_classes, height', width')` of maps; with `pre_logits` the maps as they are."""
        outputs: Tensor = x if pre_logits else self.head(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height', width')` of images `(batch, in_chans, height, width)`."""
        return self.forward_head(self.forward_features(x))


def pad_to(images: Tensor, multiple: int) -> Tensor:
    """Extends images at the bottom and on the right by their border, so that their sides are multiples of a number.

    Args:
        images: `(batch, channels, height, width)`.
        multiple: The number.
    """
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


def center_crop(maps: Tensor, height: int, width: int) -> Tensor:
    """The middle of maps or masks.

    Args:
        maps: `(..., height, width)`.
        height: Height of the result, at most that of the maps.
        width: Width of the result.
    """
    top, left = (maps.shape[-2] - height) // 2, (maps.shape[-1] - width) // 2
    return maps[..., top : top + height, left : left + width]


def _init_paper(layer: nn.Module) -> None:
    """Normal weights with a deviation of the root of 2 / fan-in (2015, section 3), zero biases."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        # a value of a 2x2 transposed convolution with stride 2 sees each input channel once
        fan_in = layer.in_channels * (1 if isinstance(layer, nn.ConvTranspose2d) else math.prod(layer.kernel_size))
        nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


default_cfgs = generate_default_cfgs(
    {
        "unet": config(2, (1, 572, 572), "down.0.0"),
        "unet_padded": config(2, (1, 512, 512), "down.0.0"),
        "unet_small": config(2, (1, 256, 256), "down.0.0"),
    }
)


@register_model
def unet(pretrained: bool = False, **kwargs: Any) -> UNet:
    """U-Net as published in 2015, with valid convolutions: 572 pixels become 388 (31,030,658 parameters)."""
    return build(UNet, "unet", pretrained, kwargs, "img_size")


@register_model
def unet_padded(pretrained: bool = False, **kwargs: Any) -> UNet:
    """U-Net with padded convolutions and batch normalization, for images of any size."""
    return build(UNet, "unet_padded", pretrained, kwargs, "img_size", padded=True, batch_norm=True, drop_rate=0.0)


@register_model
def unet_small(pretrained: bool = False, **kwargs: Any) -> UNet:
    """unet_padded with a quarter of the channels; for CPUs."""
    options = {"padded": True, "batch_norm": True, "drop_rate": 0.0, "width": 16}
    return build(UNet, "unet_small", pretrained, kwargs, "img_size", **options)
