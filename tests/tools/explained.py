"""Checkpoints of classifiers with random weights, to be explained, and what their networks see."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.modules import ImageClassifier

GRAY = Preprocessing(28, 1, mean=(0.13,), std=(0.31,), class_names=tuple(f"digit {n}" for n in range(10)))
COLOR = Preprocessing(32, 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
Pixels = NDArray[np.uint8]


def save(model: Any, preprocessing: Preprocessing, path: str = "made.ckpt") -> Path:
    """Writes a checkpoint of a model as it is."""
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "hyper_parameters": {"_class_path": f"lightning_cnn.modules.{type(model).__name__}", **model.hparams},
        "Data": {"preprocessing": preprocessing.to_dict()},
    }
    torch.save(content, path)
    return Path(path)


def made(preprocessing: Preprocessing, architecture: str, kind: Any = ImageClassifier, **options: Any) -> Any:
    """A classifier with random weights, and its checkpoint in `made.ckpt`."""
    torch.manual_seed(0)
    model = kind(
        architecture, in_channels=preprocessing.in_channels, image_size=preprocessing.image_size, **options
    ).eval()
    save(model, preprocessing)
    return model


def inputs(preprocessing: Preprocessing, images: Sequence[Pixels] | Pixels) -> Tensor:
    """Images as the network sees them."""
    pixels = torch.from_numpy(np.stack([*images])).float() / 255
    return preprocessing.scale(pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2))


def color_images(count: int) -> Pixels:
    """Noise that is smooth over the image."""
    small = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((32, 32))) for image in small])
