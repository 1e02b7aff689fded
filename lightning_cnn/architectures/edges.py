"""Four hand-made filters that see edges, frozen under a linear head."""

from collections import OrderedDict
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from lightning_cnn.architectures.classifier import Classifier, build, config


def edge_filters() -> Tensor:
    """Filters `(4, 4, 4)`: left half -1 and right half +1, its negative, its transpose, the transpose's negative.

    The first answers to an edge with dark pixels on the left and bright ones on the right, the second to the reverse;
    the third and the fourth do so from top to bottom.

    Source: the book's notebook on filters.
    """
    right = torch.tensor([-1.0, -1.0, 1.0, 1.0]).expand(4, 4)
    return torch.stack([right, -right, right.T, -right.T])


class EdgeNet(Classifier):
    """The four edge filters with a ReLU, averages over a 4x4 grid of their maps, and a linear head.

    The filters are frozen, and of a color image they see the mean over the channels. One filter on a gray image has 17
    parameters: 16 weights and a bias, which is 0.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 4.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, img_size: int = 28) -> None:
        conv = nn.Conv2d(in_chans, 4, 4).requires_grad_(False)
        with torch.no_grad():
            conv.weight.copy_(edge_filters()[:, None] / in_chans)
            conv.bias.zero_()  # type: ignore[union-attr]
        pool = nn.AdaptiveAvgPool2d(4)
        features = nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU(), pool=pool, flatten=nn.Flatten()))
        super().__init__(features, in_chans, img_size, num_classes)


default_cfgs = generate_default_cfgs({"edge_net": config(10, (1, 28, 28), "features.conv")})


@register_model
def edge_net(pretrained: bool = False, **kwargs: Any) -> EdgeNet:
    """The book's four hand-made edge filters, frozen, under a linear head (718 parameters)."""
    return build(EdgeNet, "edge_net", pretrained, kwargs)
