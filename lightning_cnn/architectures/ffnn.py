"""Networks without convolutions: softmax regression, and the feed-forward baselines of the book."""

import math
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras


class Linear(Classifier):
    """Softmax regression: one linear layer from the pixels to the classes; 7,850 parameters on MNIST.

    Without its head (`num_classes=0`) it returns the pixels, which can serve as features.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, img_size: int = 28) -> None:
        super().__init__(nn.Flatten(), in_chans, img_size, num_classes)
        self.apply(init_keras)


class FFNN(Classifier):
    """Hidden layers of ReLU units: 669,706 parameters on MNIST as `ffnn`, 3,590,642 on CIFAR-10 as `mlp_cifar`.

    Source: the book's first MNIST notebook, after the Keras example `mnist_mlp`, and its first CIFAR-10 notebook.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels; `(length,)` for sequences.
        widths: Units of each hidden layer.
        drop_rate: Probability of dropping a hidden unit.
        drop_last: Whether dropout also applies to the last hidden layer.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int | tuple[int, ...] = 28,
        widths: tuple[int, ...] = (512, 512),
        drop_rate: float = 0.2,
        drop_last: bool = True,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = in_chans * (img_size**2 if isinstance(img_size, int) else math.prod(img_size))
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(drop_rate)]
            inputs = width
        if not drop_last:
            layers.pop()
        super().__init__(nn.Sequential(*layers), in_chans, img_size, num_classes)
        self.apply(init_keras)


default_cfgs = generate_default_cfgs(
    {
        "linear": config(10, (1, 28, 28), None),
        "ffnn": config(10, (1, 28, 28), None),
        "mlp_cifar": config(10, (3, 32, 32), None),
    }
)


@register_model
def linear(pretrained: bool = False, **kwargs: Any) -> Linear:
    """Softmax regression on the pixels (7,850 parameters on MNIST)."""
    return build(Linear, "linear", pretrained, kwargs)


@register_model
def ffnn(pretrained: bool = False, **kwargs: Any) -> FFNN:
    """784-512-512-10 feed-forward network, the book's baseline (669,706 parameters)."""
    return build(FFNN, "ffnn", pretrained, kwargs)


@register_model
def mlp_cifar(pretrained: bool = False, **kwargs: Any) -> FFNN:
    """3072-1000-512-10 feed-forward network, the book's baseline for CIFAR-10 (3,590,642 parameters)."""
    shape = {"in_chans": 3, "img_size": 32, "widths": (1000, 512), "drop_last": False}
    return build(FFNN, "mlp_cifar", pretrained, kwargs, **shape)
