"""AlexNet as in its paper, ZF Net, and the book's AlexNet for CIFAR-10."""

from functools import partial
from typing import Any

from timm.layers import create_conv2d
from timm.models import generate_default_cfgs, register_model
from torch import nn

from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras, output_width

KerasNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


def local_response_norm() -> nn.Module:
    """The normalization of Krizhevsky et al. 2012, section 3.3; torch divides alpha by the size, the paper does not."""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


class AlexNet(Classifier):
    """The winner of ImageNet 2012, with its convolutions in two groups, as it was split over two GPUs.

    60,965,224 parameters for 1,000 classes at 224x224 pixels; torchvision's `alexnet` is its ungrouped successor.

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012),
    sections 3.3 to 3.5 and 4.2, weights from section 5. The first layer is padded so that images of 224 pixels give
    the paper's feature maps of 55x55.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 63.
        drop_rate: Probability of dropping a unit before each of the two large dense layers.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, img_size: int = 224, drop_rate: float = 0.5) -> None:
        layers = nn.Sequential(
            nn.Conv2d(in_chans, 96, 11, stride=4, padding=2),
            nn.ReLU(),
            local_response_norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            local_response_norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Flatten(),
        )
        super().__init__(_with_dense(layers, in_chans, img_size, drop_rate), in_chans, img_size, num_classes)
        self.apply(_init_small)
        for module in [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear)][1:-1]:
            if not (isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels == 256):
                nn.init.ones_(module.bias)  # type: ignore[arg-type]  # all but the first and third convolution


class ZFNet(Classifier):
    """AlexNet with a finer first layer, the winner of ImageNet 2013; 62,357,608 parameters for 1,000 classes.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 3.1 and figure 3.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 53.
        drop_rate: Probability of dropping a unit before each of the two large dense layers.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, img_size: int = 224, drop_rate: float = 0.5) -> None:
        layers = nn.Sequential(
            nn.Conv2d(in_chans, 96, 7, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            local_response_norm(),
            nn.Conv2d(96, 256, 5, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            local_response_norm(),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Flatten(),
        )
        super().__init__(_with_dense(layers, in_chans, img_size, drop_rate), in_chans, img_size, num_classes)
        self.apply(_init_small)


class AlexNetCIFAR(Classifier):
    """The book's AlexNet for images of 32 pixels: 21,592,330 parameters, 1,216 of them running statistics.

    Source: the book's CIFAR-10 notebook. Each pooling layer is followed by batch normalization.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 27.
        drop_rate: Probability of dropping a unit of the dense layers.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, img_size: int = 32, drop_rate: float = 0.4) -> None:
        layers = nn.Sequential(
            create_conv2d(in_chans, 96, 3, stride=2, padding="same", bias=True),
            nn.ReLU(),
            nn.MaxPool2d(2),
            KerasNorm(96),
            nn.Conv2d(96, 256, 5, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            KerasNorm(256),
            nn.Conv2d(256, 384, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            KerasNorm(256),
            nn.Flatten(),
        )
        dense = [nn.Linear(output_width(layers, in_chans, img_size), 4096), nn.ReLU(), nn.Dropout(drop_rate)]
        dense += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(drop_rate)]
        super().__init__(nn.Sequential(layers, *dense), in_chans, img_size, num_classes)
        self.apply(init_keras)


def _with_dense(layers: nn.Sequential, in_chans: int, img_size: int, drop_rate: float) -> nn.Sequential:
    """Convolutions, followed by the two dense layers that AlexNet and ZF Net share."""
    width = output_width(layers, in_chans, img_size)
    dense = [nn.Dropout(drop_rate), nn.Linear(width, 4096), nn.ReLU()]
    dense += [nn.Dropout(drop_rate), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(layers, *dense)


def _init_small(module: nn.Module) -> None:
    """Normal weights of standard deviation 0.01 and zero biases."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


default_cfgs = generate_default_cfgs(
    {
        "alexnet": config(1000, (3, 224, 224), "features.0.0"),
        "zfnet": config(1000, (3, 224, 224), "features.0.0"),
        "alexnet_cifar": config(10, (3, 32, 32), "features.0.0"),
    }
)


@register_model
def alexnet(pretrained: bool = False, **kwargs: Any) -> AlexNet:
    """AlexNet of the 2012 paper, with its groups (60,965,224 parameters)."""
    return build(AlexNet, "alexnet", pretrained, kwargs)


@register_model
def zfnet(pretrained: bool = False, **kwargs: Any) -> ZFNet:
    """ZF Net, AlexNet with a finer first layer (62,357,608 parameters)."""
    return build(ZFNet, "zfnet", pretrained, kwargs)


@register_model
def alexnet_cifar(pretrained: bool = False, **kwargs: Any) -> AlexNetCIFAR:
    """AlexNet of the book, for CIFAR-10 (21,592,330 values, 21,591,114 of them parameters)."""
    return build(AlexNetCIFAR, "alexnet_cifar", pretrained, kwargs)
