"""Feed-forward networks without convolutions, the baseline of the book's chapter."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from lightning_cnn.architectures.classifier import Classifier, init_keras


class FFNN(Classifier):
    """Two hidden layers of 512 rectified units, each followed by dropout; 669,706 parameters on MNIST.

    Source: the book's first MNIST notebook, after the Keras example `mnist_mlp`.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the images.
        img_size: Side of the images in pixels.
        drop_rate: Probability of dropping a hidden unit.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, img_size: int = 28, drop_rate: float = 0.2) -> None:
        layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_chans * img_size**2, 512),
            nn.ReLU(),
            nn.Dropout(drop_rate),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(drop_rate),
        )
        super().__init__(layers, in_chans, img_size, num_classes)
        self.apply(init_keras)


default_cfgs = generate_default_cfgs(
    {"ffnn": {"num_classes": 10, "input_size": (1, 28, 28), "classifier": "head", "first_conv": None}}
)


@register_model
def ffnn(pretrained: bool = False, **kwargs: Any) -> FFNN:
    """784-512-512-10 feed-forward network, the chapter's baseline (669,706 parameters)."""
    model: FFNN = build_model_with_cfg(FFNN, "ffnn", pretrained, kwargs_filter=("global_pool",), **kwargs)
    return model
