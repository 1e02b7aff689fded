"""RotatedDigits: images that are rotated by the angle that they are labelled with."""

from typing import Any, cast

import numpy as np
import torch
from image_sets import fails, ready
from PIL import Image

from lightning_cnn.datamodules import Digits, RotatedDigits
from lightning_cnn.datamodules.images.rotated_digits import rotated


def test_angles_are_those_of_pillow() -> None:
    """Pillow's angles count counterclockwise, too."""
    images, _ = cast(Any, ready(Digits())).dataset("train")[torch.arange(20)]
    angles = torch.linspace(-45, 45, 20)[:, None]
    for image, angle, found in zip(images, angles, rotated(images, angles), strict=True):
        small = Image.fromarray(image[0].numpy()).resize((21, 21), Image.Resampling.BILINEAR)
        canvas = Image.new("L", (28, 28))
        canvas.paste(small, (3, 3))  # the middle, but for half a pixel
        turned = np.asarray(canvas.rotate(float(angle), Image.Resampling.BILINEAR), dtype=float)
        other = np.asarray(canvas.rotate(-float(angle), Image.Resampling.BILINEAR), dtype=float)
        wanted = np.corrcoef(turned.ravel(), found[0].numpy().ravel())[0, 1]
        assert wanted > 0.9
        if abs(float(angle)) > 20:
            assert wanted > np.corrcoef(other.ravel(), found[0].numpy().ravel())[0, 1]


def test_angles_are_new_in_training_and_fixed_in_the_test() -> None:
    data = cast(Any, ready(RotatedDigits(max_angle=30)))
    images, labels = data.dataset("train")[torch.arange(200)]
    assert (labels == 0).all()
    first, then = (data.augment(images, labels, torch.Generator().manual_seed(seed), 0)[1] for seed in (0, 1))
    assert first.shape == (200, 1) and 25 < first.abs().max() <= 30 and not torch.equal(first, then)
    data.setup("test")
    again = cast(Any, RotatedDigits(max_angle=30))
    again.setup("test")
    assert torch.equal(data.dataset("test")[[0, 5]][1], again.dataset("test")[[0, 5]][1])
    angles = data.dataset("test")[torch.arange(360)][1]
    assert abs(float(angles.mean())) < 3 and abs(float(angles.std()) - 30 / 3**0.5) < 1.5
    assert data.label_scale()[1] == 30 / 3**0.5 and data.title(angles[0]) == f"{round(float(angles[0]))}°"


def test_options_that_would_change_the_angle_are_refused() -> None:
    for options in ({"flip": True}, {"rotation": 5}, {"mixup": 0.2}):
        assert "`data.augment." in fails(lambda options=options: RotatedDigits(augment=options))  # type: ignore[misc]
    assert "`data.max_angle` 0" in fails(lambda: RotatedDigits(max_angle=0))


def test_the_examples_are_rotated_by_the_angles_above_them() -> None:
    data = cast(Any, ready(RotatedDigits(max_angle=40)))
    figure = data.plot(4)
    texts = [text.get_text() for text in figure.axes[0].texts]
    angles = torch.tensor([[float(text.removesuffix("°"))] for text in texts])
    assert len(texts) == 4 and angles.abs().max() > 5
    images, _ = data.dataset("train")[data._sample(4)]
    canvas = figure.axes[0].images[0].get_array()
    for number, wanted in enumerate(rotated(images, angles)):
        left = number * 31  # of 28 pixels, and a gap of 3
        found = np.asarray(canvas)[8:36, left : left + 28, 0].astype(float)
        assert np.corrcoef(found.ravel(), wanted[0].numpy().ravel())[0, 1] > 0.99
