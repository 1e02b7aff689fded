"""Networks that train fast on CIFAR-10: designed for 94 % and 96 % within seconds on a data-center GPU."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cnn.architectures.classifier import Classifier, build, config

# batch statistics are averaged over the last few steps only: a run of seconds has few hundred
MOMENTUM = 0.4
# added to the eigenvalues of the patches, on the scale of standardized pixels (Page 2019, part 8)
WHITENING_EPS = 5e-4


class PatchWhitening(nn.Module):
    """A fixed 2x2 convolution whose outputs are uncorrelated over the training images, concatenated with its negative.

    Before `fit` is called, the kernels are random and orthogonal.

    Source: Page, "How to train your ResNet" (2019), part 8; the frozen form with a learned bias: Jordan, "94% on
    CIFAR-10 in 3.29 seconds on a single GPU" (2024), section 3.2.

    Args:
        in_chans: Channels of the images; there are 8 times as many output channels.
    """

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        directions = nn.init.orthogonal_(torch.empty(4 * in_chans, 4 * in_chans))
        self.kernels: Tensor
        self.register_buffer("kernels", directions.view(-1, in_chans, 2, 2))
        self.bias = nn.Parameter(torch.zeros(8 * in_chans))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Fits the kernels to patches of images.

        Args:
            images: Float, `(n, in_chans, height, width)`, scaled as in training; a few thousand are enough.
        """
        patches = F.unfold(images.double(), 2).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        whitening = vectors.T / (values + WHITENING_EPS).sqrt()[:, None]
        self.kernels.copy_(whitening.flip(0).view_as(self.kernels))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chans, height, width)` to `(batch, 8 in_chans, height - 1, width - 1)`."""
        return F.conv2d(x, torch.cat([self.kernels, -self.kernels]), self.bias)


class ShiftedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization with a learned bias, without a learned scale."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=1 - MOMENTUM, affine=False, eps=1e-12)
        self.shift = nn.Parameter(torch.zeros(channels))

    @property
    def bias(self) -> nn.Parameter:  # type: ignore[override]
        """What the base class adds in the same call; added afterwards, everything would be read and written twice."""
        return self.shift


class Block(nn.Module):
    """A convolution and pooling, followed by convolutions at half the size; at depth 3, the last has a skip connection.

    Args:
        in_chans: Input channels.
        out_chans: Output channels.
        depth: Number of 3x3 convolutions, 2 or 3; the third has a skip connection.
    """

    def __init__(self, in_chans: int, out_chans: int, depth: int) -> None:
        super().__init__()
        self.first = _conv(in_chans, out_chans)
        self.convolutions = nn.ModuleList(_conv(out_chans, out_chans) for _ in range(depth - 1))
        self.norms = nn.ModuleList(ShiftedBatchNorm2d(out_chans) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_chans, height, width)` to `(batch, out_chans, height / 2, width / 2)`."""
        x = F.gelu(self.norms[0](F.max_pool2d(self.first(x), 2)))
        skipped = x
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms[1:], strict=True)):
            x = norm(convolution(x))
            x = F.gelu(x + skipped if number == 1 else x)
        return x


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose outputs are multiplied by a fixed number.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        scale: The factor.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_features)` to `(batch, out_features)`."""
        return super().forward(x) * self.scale


class CifarFast(Classifier):
    """Whitened 2x2 patches, three blocks of 3x3 convolutions, and a scaled linear head.

    Convolutions are initialized as identities on their first channels. `init_from_images` fits the whitening; the
    LightningModule calls it before the first step.

    Source: Jordan (2024), section 3, which builds on Page (2019) and hlb-CIFAR10 (2023).

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 9.
        widths: Channels of the three blocks.
        depth: Convolutions of each block, 2 or 3.
        scale: Factor of the logits.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        img_size: int = 32,
        widths: Sequence[int] = (64, 256, 256),
        depth: int = 2,
        scale: float = 1 / 9,
    ) -> None:
        channels = [8 * in_chans, *widths]
        blocks = [Block(before, after, depth) for before, after in pairwise(channels)]
        pool = SelectAdaptivePool2d(pool_type="fastmax", flatten=True)  # torch 2.12 writes no other as ONNX
        layers = nn.Sequential(PatchWhitening(in_chans), nn.GELU(), *blocks, pool)
        self.scale = scale
        super().__init__(layers, in_chans, img_size, num_classes)

    def init_from_images(self, images: Tensor) -> None:
        """Fits the whitening of the first layer.

        Args:
            images: Training images `(n, in_chans, img_size, img_size)`, scaled as in training.
        """
        self.features[0].fit(images)  # type: ignore[index]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head with a new one; see `Classifier`."""
        self.num_classes = num_classes
        self.head = ScaledLinear(self.num_features, num_classes, self.scale) if num_classes else nn.Identity()


def _conv(in_chans: int, out_chans: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[: min(in_chans, out_chans)].data)
    return convolution


default_cfgs = generate_default_cfgs(dict.fromkeys(("cifar_fast", "cifar_fast_wide"), config(10, (3, 32, 32), None)))


@register_model
def cifar_fast(pretrained: bool = False, **kwargs: Any) -> CifarFast:
    """Six 3x3 convolutions on whitened patches, designed for 94 % on CIFAR-10 in seconds (1,971,352 parameters)."""
    return build(CifarFast, "cifar_fast", pretrained, kwargs)


@register_model
def cifar_fast_wide(pretrained: bool = False, **kwargs: Any) -> CifarFast:
    """Nine wider convolutions with skip connections, designed for 96 % on CIFAR-10."""
    return build(CifarFast, "cifar_fast_wide", pretrained, kwargs, widths=(128, 384, 512), depth=3)
