"""Networks that read a whole house number at once: the book's, and a residual one.

Both return 60 values, which `modules/house_number_reader.py` splits into six heads. A linear layer with 60 outputs
equals six with 6, 10, 11, 11, 11 and 11 outputs, so any network of timm can be used instead.
"""

from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from lightning_cnn.architectures.alexnet import KerasNorm
from lightning_cnn.architectures.classifier import Classifier, build, config, init_keras, output_width

MAX_DIGITS = 5
BLANK = 10  # the label of a place that a number does not have
# what a reader gives for an image: logits of the lengths 0 to 5, of ten first digits, and of ten digits or none
# for each of the four other places
HEADS = (1 + MAX_DIGITS, BLANK, *(BLANK + 1,) * (MAX_DIGITS - 1))
CHANNELS = (48, 48, 64, 128, 160, 192, 192, 192)
WIDTH = 3072


class HouseNumberNet(Classifier):
    """The book's network for house numbers: 13,686,252 parameters, 2,048 of them running statistics.

    Eight blocks of convolution, batch normalization and pooling, then two dense layers with nothing between them. The
    first block has no ReLU.

    Source: the book's SVHN notebook, after Goodfellow et al., "Multi-digit Number Recognition from Street View Imagery
    using Deep Convolutional Neural Networks" (2013), section 5.1.

    Args:
        num_classes: Number of outputs.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 31.
        drop_rate: Probability of dropping a value after each block.
    """

    def __init__(self, num_classes: int = 60, in_chans: int = 1, img_size: int = 32, drop_rate: float = 0.2) -> None:
        layers: list[nn.Module] = []
        for number, channels in enumerate(CHANNELS):
            layers.append(nn.Conv2d(CHANNELS[number - 1] if number else in_chans, channels, 5, padding="same"))
            if number:
                layers.append(nn.ReLU())
            layers += [KerasNorm(channels), nn.MaxPool2d(2, 1 + number % 2), nn.Dropout(drop_rate)]
        blocks = nn.Sequential(*layers, nn.Flatten())
        dense = nn.Linear(output_width(blocks, in_chans, img_size), WIDTH), nn.Linear(WIDTH, WIDTH)
        super().__init__(nn.Sequential(blocks, *dense), in_chans, img_size, num_classes)
        self.apply(init_keras)


class _Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, section 3.3); stride 2 halves height and width."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)  # each block begins as its shortcut (Goyal et al. 2017, section 5.1)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class HouseNumberResNet(Classifier):
    """A residual network that keeps the positions of the digits: no global pooling before the dense layer.

    Args:
        num_classes: Number of outputs.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels, at least 8.
        width: Channels of the first stage; the two others have two and four times as many.
        drop_rate: Probability of dropping a value of the dense layer.
    """

    def __init__(
        self,
        num_classes: int = 60,
        in_chans: int = 3,
        img_size: int = 40,
        width: int = 64,
        drop_rate: float = 0.2,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(in_chans, width // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
        ]
        before = width // 2
        for channels in (width, 2 * width, 4 * width):
            layers += [_Residual(before, channels, 2), _Residual(channels, channels, 1)]
            before = channels
        stages = nn.Sequential(*layers, nn.Flatten())
        dense = nn.Linear(output_width(stages, in_chans, img_size), 512, bias=False), nn.BatchNorm1d(512), nn.ReLU()
        super().__init__(nn.Sequential(stages, *dense, nn.Dropout(drop_rate)), in_chans, img_size, num_classes)


default_cfgs = generate_default_cfgs(
    {
        "house_number_net": config(60, (1, 32, 32), "features.0.0"),
        "house_number_resnet": config(60, (3, 40, 40), "features.0.0"),
    }
)


@register_model
def house_number_net(pretrained: bool = False, **kwargs: Any) -> HouseNumberNet:
    """The book's network for whole house numbers (13,686,252 values, 13,684,204 of them parameters)."""
    return build(HouseNumberNet, "house_number_net", pretrained, kwargs)


@register_model
def house_number_resnet(pretrained: bool = False, **kwargs: Any) -> HouseNumberResNet:
    """A residual network for whole house numbers."""
    return build(HouseNumberResNet, "house_number_resnet", pretrained, kwargs)


def number_text(label: Tensor) -> str:
    """Converts a label to text, such as `210`.

    Args:
        label: int64 `(6,)`: count of digits, then each, `BLANK` where there is none.
    """
    length, *digits = label.tolist()
    return "".join(map(str, digits[:length]))
