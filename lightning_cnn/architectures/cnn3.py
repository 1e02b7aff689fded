"""The small convolutional network of the book's CIFAR-10 notebook."""

from typing import Any

from timm.layers import Conv2dSame
from timm.models import generate_default_cfgs, register_model
from torch import nn

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras


class CNN3(Classifier):
    """Three convolutions of 2x2 pixels, each with a pooling layer, and two dense layers; 528,054 parameters.

    Source: the book's CIFAR-10 notebook. `Conv2dSame` pads as Keras does: even kernels on the right and below.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 8.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, img_size: int = 32) -> None:
        layers: list[nn.Module] = []
        channels = in_chans
        for maps in (16, 32, 64):
            layers += [Conv2dSame(channels, maps, 2), nn.ReLU(), nn.MaxPool2d(2)]
            channels = maps
        side = img_size // 2 // 2 // 2
        dense = [nn.Linear(64 * side**2, 500), nn.ReLU(), nn.Dropout(0.4)]
        super().__init__(nn.Sequential(*layers, nn.Dropout(0.3), nn.Flatten(), *dense), in_chans, img_size, num_classes)
        self.apply(init_keras)


default_cfgs = generate_default_cfgs({"cnn3": config(10, (3, 32, 32), "features.0")})


@register_model
def cnn3(pretrained: bool = False, **kwargs: Any) -> CNN3:
    """Three 2x2 convolutions of the book, for CIFAR-10 (528,054 parameters)."""
    return build(CNN3, "cnn3", pretrained, kwargs)
