"""Capsule networks: the length of a vector is a probability, its direction the properties of what it stands for."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras


def lengths(x: Tensor) -> Tensor:
    """Lengths of vectors in the last dimension."""
    found: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return found


def squash(x: Tensor) -> Tensor:
    """Vectors `x |x| / (1 + |x|^2)`, whose length is below 1 (Sabour et al. 2017, equation 1).

    Args:
        x: Vectors in the last dimension.
    """
    length: Tensor = lengths(x).unsqueeze(-1)
    return x * (length / (1 + length.square()))


def steep_squash(x: Tensor) -> Tensor:
    """Vectors `x / |x| (1 - exp(-|x|))`, more sensitive to small lengths (Mazzia et al. 2021, equation 3).

    Args:
        x: Vectors in the last dimension.
    """
    length: Tensor = lengths(x).unsqueeze(-1)
    return x * (-torch.expm1(-length) / length.clamp_min(1e-12))


class PrimaryCapsules(nn.Module):
    """Capsules from a convolution, `types` of them at each position (Sabour et al. 2017, section 4).

    Args:
        channels: Input channels.
        types: Capsules at each position.
        dim: Dimension of a capsule.
        kernel_size: Side of the filters.
        stride: Stride of the convolution.
        groups: Groups of the convolution.
    """

    def __init__(self, channels: int, types: int, dim: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, types * dim, kernel_size, stride, groups=groups)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to capsules `(batch, capsules, dim)`, not squashed."""
        maps: Tensor = self.conv(x).unflatten(1, (-1, self.dim))
        return maps.permute(0, 1, 3, 4, 2).flatten(1, 3)


class ClassCapsules(nn.Module):
    """The head of a capsule network: one capsule for each class, from the predictions of the capsules below.

    Args:
        capsules: Number of capsules below.
        num_classes: Number of classes.
        in_dim: Dimension of the capsules below.
        dim: Dimension of a capsule.
        std: Standard deviation of the initial weights.
    """

    def __init__(self, capsules: int, num_classes: int, in_dim: int, dim: int, std: float) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.weight = nn.Parameter(torch.randn(capsules, in_dim, num_classes, dim) * std)

    def forward(self, x: Tensor) -> Tensor:
        """Lengths `(batch, num_classes)`, 0 to 1, of the class capsules over `(batch, capsules * in_dim)`."""
        return lengths(self.capsules(x))

    def capsules(self, x: Tensor) -> Tensor:
        """The class capsules `(batch, num_classes, dim)` over `(batch, capsules * in_dim)`."""
        # the votes as (batch, classes, capsules, dim): routing is then a product of matrices for each class
        votes = torch.einsum("bni,nico->bcno", x.unflatten(1, (-1, self.in_dim)), self.weight)
        return self.route(votes)

    def route(self, votes: Tensor) -> Tensor:
        """The class capsules.

        Args:
            votes: Prediction of each capsule below for each class, `(batch, num_classes, capsules, dim)`.
        """
        raise NotImplementedError


class RoutingByAgreement(ClassCapsules):
    """Routing by agreement: coefficients grow with the agreement of predictions (Sabour et al. 2017, procedure 1).

    Args:
        capsules: Number of capsules below.
        num_classes: Number of classes.
        in_dim: Dimension of the capsules below.
        dim: Dimension of a capsule.
        iterations: Number of routing iterations; all coefficients are equal in the first.
    """

    def __init__(self, capsules: int, num_classes: int, in_dim: int, dim: int = 16, iterations: int = 3) -> None:
        super().__init__(capsules, num_classes, in_dim, dim, std=0.1)
        self.iterations = iterations

    def route(self, votes: Tensor) -> Tensor:
        """The class capsules; gradients go through all iterations."""
        logits = votes.new_zeros(*votes.shape[:3], 1)
        for _ in range(self.iterations - 1):
            found = squash((logits.softmax(1).mT @ votes).squeeze(2))
            logits = logits + votes @ found.unsqueeze(3)
        return squash((logits.softmax(1).mT @ votes).squeeze(2))


class SelfAttentionRouting(ClassCapsules):
    """Self-attention routing: coefficients from the agreement of predictions, in one pass (Mazzia et al. 2021, 3.3).

    Args:
        capsules: Number of capsules below.
        num_classes: Number of classes.
        in_dim: Dimension of the capsules below.
        dim: Dimension of a capsule.
    """

    def __init__(self, capsules: int, num_classes: int, in_dim: int, dim: int = 16) -> None:
        super().__init__(capsules, num_classes, in_dim, dim, std=math.sqrt(2 / (capsules * num_classes * in_dim)))
        self.prior = nn.Parameter(torch.zeros(num_classes, capsules, 1))

    def route(self, votes: Tensor) -> Tensor:
        """The class capsules."""
        agreement = votes @ votes.sum(2).unsqueeze(3) / math.sqrt(votes.shape[3])
        shares = agreement.softmax(1) + self.prior
        return steep_squash((shares.mT @ votes).squeeze(2))


class CapsuleNet(Classifier):
    """A network whose head has one capsule for each class, and whose outputs are the lengths of these.

    Args:
        features: Maps images `(batch, in_chans, img_size, img_size)` to capsules `(batch, capsules * dim)`.
        head: The class of its head.
        dim: Dimension of the capsules below the head.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels.
        num_classes: Number of classes; 0 removes the head.
        options: Arguments of the head.
    """

    def __init__(
        self,
        features: nn.Module,
        head: type[ClassCapsules],
        dim: int,
        in_chans: int,
        img_size: int,
        num_classes: int,
        **options: Any,
    ) -> None:
        self._head, self._dim, self._options = head, dim, options
        super().__init__(features, in_chans, img_size, num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head with a new one.

        Args:
            num_classes: Number of classes; 0 removes the head.
            global_pool: Ignored; part of timm's interface.
        """
        self.num_classes = num_classes
        sizes = self.num_features // self._dim, num_classes, self._dim
        self.head = self._head(*sizes, **self._options) if num_classes else nn.Identity()

    def forward(self, x: Tensor, as_capsules: bool = False) -> Tensor:
        """Lengths of the class capsules `(batch, num_classes)`, or these themselves, `(batch, num_classes, dim)`."""
        return self.capsules(x) if as_capsules else super().forward(x)

    def capsules(self, images: Tensor) -> Tensor:
        """The class capsules `(batch, num_classes, dim)` of images `(batch, in_chans, img_size, img_size)`."""
        found: Tensor = self.head.capsules(self.forward_features(images))  # type: ignore[operator]
        return found


class Squash(nn.Module):
    """Squashes capsules `(batch, capsules, dim)` and flattens them to `(batch, capsules * dim)`.

    Args:
        steep: Whether to use `steep_squash`.
    """

    def __init__(self, steep: bool = False) -> None:
        super().__init__()
        self.steep = steep

    def forward(self, x: Tensor) -> Tensor:
        """The squashed capsules."""
        return (steep_squash if self.steep else squash)(x).flatten(1)


class CapsNet(CapsuleNet):
    """The capsule network with routing by agreement: 6,804,224 parameters on MNIST.

    Convolution 20,992, primary capsules 5,308,672, class capsules 1,474,560; the decoder that reconstructs the image
    belongs to `CapsuleClassifier`.

    Source: Sabour, Frosst and Hinton, "Dynamic routing between capsules" (2017), section 4.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 17.
        width: Channels of the first convolution.
        types: Primary capsules at each position.
        iterations: Number of routing iterations.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int = 28,
        width: int = 256,
        types: int = 32,
        iterations: int = 3,
    ) -> None:
        conv = nn.Conv2d(in_chans, width, 9)
        features = nn.Sequential(conv, nn.ReLU(), PrimaryCapsules(width, types, 8, 9, stride=2), Squash())
        super().__init__(features, RoutingByAgreement, 8, in_chans, img_size, num_classes, iterations=iterations)


class EfficientCapsNet(CapsuleNet):
    """A small capsule network with self-attention routing: 161,824 parameters on MNIST, and 576 running statistics.

    Source: Mazzia, Salvetti and Chiaberge, "Efficient-CapsNet: capsule network with self-attention routing" (2021),
    section 3.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 13.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, img_size: int = 28) -> None:
        layers: list[nn.Module] = []
        before = in_chans
        for channels, kernel_size, stride in ((32, 5, 1), (64, 3, 1), (64, 3, 1), (128, 3, 2)):
            layers += [nn.Conv2d(before, channels, kernel_size, stride), nn.ReLU(), nn.BatchNorm2d(channels)]
            before = channels
        side = (img_size - 8 - 1) // 2  # one kernel as large as the feature maps
        primary = PrimaryCapsules(before, before // 8, 8, side, groups=before)
        features = nn.Sequential(*layers, primary, Squash(steep=True))
        super().__init__(features, SelfAttentionRouting, 8, in_chans, img_size, num_classes)


class CapsNetBaseline(Classifier):
    """The convolutional network with which the capsule network is compared: 35,445,522 parameters on MNIST.

    Source: Sabour, Frosst and Hinton, "Dynamic routing between capsules" (2017), section 5.1. The convolutions are
    padded, as the paper's count of 35.4 million implies.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels.
        widths: Output channels of each 5x5 convolution.
        hidden: Units of each dense layer.
        drop_rate: Probability of dropping a unit of the last dense layer.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int = 28,
        widths: Sequence[int] = (256, 256, 128),
        hidden: Sequence[int] = (328, 192),
        drop_rate: float = 0.5,
    ) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((in_chans, *widths)):
            layers += [nn.Conv2d(before, after, 5, padding=2), nn.ReLU()]
        layers.append(nn.Flatten())
        for before, after in pairwise((widths[-1] * img_size**2, *hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(nn.Sequential(*layers, nn.Dropout(drop_rate)), in_chans, img_size, num_classes)
        self.apply(init_keras)


class CapsuleDecoder(nn.Module):
    """Reconstructs an image from the capsule of its class; 1,411,344 parameters for MNIST (Sabour et al. 2017, fig. 2).

    Args:
        num_classes: Number of classes.
        dim: Dimension of a capsule.
        shape: Channels, height and width of the images.
    """

    def __init__(self, num_classes: int, dim: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        widths = (num_classes * dim, 512, 1024, math.prod(shape))
        first, second, last = (nn.Linear(a, b) for a, b in pairwise(widths))
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last, nn.Sigmoid(), nn.Unflatten(1, shape))
        self.apply(init_keras)

    def forward(self, capsules: Tensor, chosen: Tensor) -> Tensor:
        """Images `(batch, channels, height, width)`, 0 to 1.

        Args:
            capsules: `(batch, num_classes, dim)`.
            chosen: `(batch, num_classes)`, 1 for the capsules to decode, 0 for the others.
        """
        images: Tensor = self.layers((capsules * chosen.unsqueeze(2)).flatten(1))
        return images


NAMES = ("capsnet", "capsnet_small", "efficient_capsnet", "capsnet_baseline")
default_cfgs = generate_default_cfgs({name: config(10, (1, 28, 28), "features.0") for name in NAMES})


@register_model
def capsnet(pretrained: bool = False, **kwargs: Any) -> CapsNet:
    """The capsule network with routing by agreement (6,804,224 parameters on MNIST)."""
    return build(CapsNet, "capsnet", pretrained, kwargs)


@register_model
def capsnet_small(pretrained: bool = False, **kwargs: Any) -> CapsNet:
    """CapsNet with a quarter of the channels and capsules, for CPUs."""
    return build(CapsNet, "capsnet_small", pretrained, kwargs, width=64, types=8)


@register_model
def efficient_capsnet(pretrained: bool = False, **kwargs: Any) -> EfficientCapsNet:
    """A small capsule network with self-attention routing (161,824 parameters on MNIST)."""
    return build(EfficientCapsNet, "efficient_capsnet", pretrained, kwargs)


@register_model
def capsnet_baseline(pretrained: bool = False, **kwargs: Any) -> CapsNetBaseline:
    """The convolutional network that the capsule network is compared with (35,445,522 parameters on MNIST)."""
    return build(CapsNetBaseline, "capsnet_baseline", pretrained, kwargs)
