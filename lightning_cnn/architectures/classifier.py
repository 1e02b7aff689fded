"""The base of our classification networks: timm's interface, and the weight initialization of Keras."""

from typing import Any, TypeVar

import torch
from timm.models import build_model_with_cfg
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


class Classifier(nn.Module):
    """A feature extractor and a linear head, with the methods that every timm network has.

    Args:
        features: Maps images `(batch, in_chans, img_size, img_size)` to features `(batch, n)`.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels; `(length,)` for sequences `(batch, in_chans, length)`.
        num_classes: Size of the output; 0 removes the head.

    Raises:
        RuntimeError: If the images are smaller than the layers need.
    """

    def __init__(self, features: nn.Module, in_chans: int, img_size: int | tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.num_features = output_width(features, in_chans, img_size)
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head with a new one.

        Args:
            num_classes: Size of the output; 0 removes the head.
            global_pool: Ignored; part of timm's interface.
        """
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Returns the head."""
        return self.head

    def forward_features(self, x: Tensor) -> Tensor:
        """Features `(batch, num_features)` of images `(batch, in_chans, img_size, img_size)`."""
        outputs: Tensor = self.features(x)
        return outputs

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits `(batch, num_classes)` of features; with `pre_logits` the features as they are."""
        outputs: Tensor = x if pre_logits else self.head(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(batch, num_classes)` of images `(batch, in_chans, img_size, img_size)`."""
        return self.forward_head(self.forward_features(x))


def output_width(layers: nn.Module, in_chans: int, img_size: int | tuple[int, ...]) -> int:
    """Number of features that layers extract from an image.

    Args:
        layers: Map images `(batch, in_chans, img_size, img_size)` to features `(batch, n)`.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels; `(length,)` for sequences `(batch, in_chans, length)`.

    Raises:
        RuntimeError: If the images are smaller than the layers need.
    """
    training = layers.training
    sides = (img_size, img_size) if isinstance(img_size, int) else img_size
    with torch.no_grad():
        outputs: Tensor = layers.eval()(torch.zeros(1, in_chans, *sides))
    layers.train(training)
    return outputs.shape[1]


def init_keras(module: nn.Module) -> None:
    """Glorot uniform weights and zero biases, the defaults of Keras; for `Module.apply`.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010),
    section 4.2.1.
    """
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(kind: type[Net], name: str, pretrained: bool, options: dict[str, Any], *unused: str, **defaults: Any) -> Net:
    """Builds a network through timm, which also loads pretrained weights.

    Args:
        kind: The class of the network.
        name: Its name in timm's registry.
        pretrained: Whether to load the weights of its configuration.
        options: Arguments of the network.
        unused: Options that are dropped because the network has no such argument, besides timm's `global_pool`.
        defaults: Arguments that `options` may replace.
    """
    arguments = {**defaults, **options}
    model: Net = build_model_with_cfg(kind, name, pretrained, kwargs_filter=("global_pool", *unused), **arguments)
    return model


def config(classes: int, shape: tuple[int, int, int], first_conv: str | None, **more: Any) -> dict[str, Any]:
    """The entry of a network in `default_cfgs`, with which timm adapts weights to other images or classes.

    Args:
        classes: Number of classes.
        shape: Shape of the input, `(channels, height, width)`; sequences have height 1.
        first_conv: Name of the first convolution, which is adapted to other numbers of channels.
        more: Further entries.
    """
    return {"num_classes": classes, "input_size": shape, "classifier": "head", "first_conv": first_conv, **more}
