"""Boxes that move with their images: against a plain loop, and against drawn rectangles."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_cnn.datamodules.detection.annotations import CROWD, UNUSED
from lightning_cnn.datamodules.detection.base import BoxDataModule
from lightning_cnn.datamodules.detection.moved_boxes import move_with_boxes
from lightning_cnn.datamodules.images.augmentation import Augmentation, AugmentOptions
from lightning_cnn.datamodules.images.moves import flip_alternately
from lightning_cnn.errors import UserError

SIDE = 64
ALL: AugmentOptions = {"shift": 0.3, "flip": True, "rotation": 40, "zoom": 0.4, "crop": 9}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TwoKinds(BoxDataModule):
    """A data set of two classes."""

    num_classes = 2
    class_names = ("light", "dark")


def labels_of(count: int, rows: int = 6, seed: int = 0) -> Tensor:
    """Random boxes of two classes, crowd regions among them, and unused rows between them."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, SIDE - 8, (count, rows, 2))
    high = np.minimum(low + random.uniform(2, 30, (count, rows, 2)), SIDE)
    classes = random.choice([0, 1, CROWD, CROWD - 1, UNUSED], (count, rows, 1), p=[0.35, 0.35, 0.1, 0.1, 0.1])
    labels = np.concatenate([classes, low, high], 2)
    labels[classes[..., 0] == UNUSED] = UNUSED
    return torch.tensor(labels, dtype=torch.float32)


def expected(label: list[float], matrix: Any, down: int, right: int, min_visible: float) -> list[float]:
    """One row of a label after a move, number by number."""
    kind, left, top, high, low = label
    if kind == UNUSED:
        return [UNUSED] * 5
    to_unit = np.array([[2 / SIDE, 0, -1], [0, 2 / SIDE, -1], [0, 0, 1]])
    there = np.linalg.inv(to_unit) @ np.linalg.inv(np.vstack([matrix, [0, 0, 1]])) @ to_unit
    corners = [(there @ [x, y, 1])[:2] for x in (left, high) for y in (top, low)]
    x0, y0 = (min(corner[axis] for corner in corners) for axis in (0, 1))
    x1, y1 = (max(corner[axis] for corner in corners) for axis in (0, 1))
    area = (x1 - x0) * (y1 - y0)
    edges = []
    for value, by in ((x0, right), (y0, down), (x1, right), (y1, down)):
        seen = min(max(value, 0), SIDE) - by
        edges.append(min(max(seen, 0), SIDE))
    width, height = edges[2] - edges[0], edges[3] - edges[1]
    if width <= 0 or height <= 0:
        return [UNUSED] * 5
    if kind >= 0 and (width * height < (min_visible - 1e-4) * area or width < 1 or height < 1):
        kind = -2 - kind
    return [kind, *edges]


@pytest.mark.parametrize("options", [ALL, {"shift": 0.5}, {"flip": True}, {"crop": 30}, {"rotation": 180}, {}])
@pytest.mark.parametrize("min_visible", [0.0, 0.4, 1.0])
def test_against_a_loop_over_boxes(options: AugmentOptions, min_visible: float) -> None:
    augmentation, labels = Augmentation.from_options(options), labels_of(40)
    images = torch.zeros(40, 3, SIDE, SIDE, dtype=torch.uint8)
    _, moved = move_with_boxes(augmentation, images, labels, seeded(), 0, 0, min_visible)
    generator = seeded()
    matrices = augmentation.matrices(40, generator, images.device).double().numpy()
    shifts = augmentation.shifts(40, generator, images.device) if augmentation.crop else torch.zeros(2, 40)
    for label, found, matrix, (down, right) in zip(labels, moved, matrices, shifts.T.int().tolist(), strict=True):
        by_hand = [expected(row, matrix, down, right, min_visible) for row in label.tolist()]
        assert np.allclose(found.numpy(), by_hand, atol=1e-3)
    if options and min_visible == 0.4:  # all that can happen to an object does
        kinds = moved[..., 0][labels[..., 0] >= 0]
        assert (kinds >= 0).any() and (options == {"flip": True} or (kinds <= CROWD).any())
        assert options in ({"flip": True}, {"rotation": 180}) or (kinds == UNUSED).any()
    if not options:
        assert torch.equal(moved, labels)


@pytest.mark.parametrize(
    ("options", "close"),
    [
        ({"flip": True}, 0.01),
        ({"alternating_flip": True}, 0.01),
        ({"crop": 6}, 0.01),
        ({"zoom": 0.3}, 0.51),
        ({"shift": 0.1}, 0.51),
        ({"rotation": 30}, 1.5),
        ({"shift": 0.1, "flip": True, "rotation": 25, "zoom": 0.2, "crop": 5}, 1.5),
    ],
)
def test_the_box_lies_where_its_rectangle_is_drawn(options: AugmentOptions, close: float) -> None:
    random, count = np.random.default_rng(1), 60
    low = random.integers(16, 34, (count, 2))
    boxes = torch.from_numpy(np.concatenate([low, low + random.integers(6, 15, (count, 2))], 1))
    images = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.uint8)
    for image, (left, top, right, bottom) in zip(images, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] = 255
    labels = torch.cat([torch.zeros(count, 1), boxes], 1)[:, None].float()
    pixels, moved = move_with_boxes(Augmentation.from_options(options), images, labels, seeded(5), 0, 0, 0.3)
    assert not torch.equal(moved, labels) and (moved[..., 0] == 0).all()
    for image, row in zip(pixels[:, 0] > 0.5, moved[:, 0], strict=True):
        rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
        drawn = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (drawn - row[1:]).abs().max() <= close


def test_images_are_those_of_the_augmentation_but_for_what_comes_in() -> None:
    images = torch.randint(256, (9, 3, SIDE, SIDE), dtype=torch.uint8, generator=seeded())
    options: AugmentOptions = ALL | {"alternating_flip": True, "flip": False, "crop_fill": "zero"}  # type: ignore[assignment]
    augmentation = Augmentation.from_options(options)
    pixels, _ = move_with_boxes(augmentation, images, labels_of(9), seeded(2), 1, 3, 0.3)
    usual = augmentation.change(images, seeded(2), 1, 3)
    inside = pixels > 0
    assert 0.4 < inside.float().mean() < 0.95 and (pixels - usual)[:, :, 25:39, 25:39].abs().mean() < 1e-3
    plain = Augmentation(alternating_flip=True)
    pixels, _ = move_with_boxes(plain, images, labels_of(9), seeded(2), 1, 3, 0.3)
    assert torch.equal(pixels, flip_alternately(images, 1, 3) / 255)


def test_a_data_set_moves_its_boxes_and_cuts_without() -> None:
    data = TwoKinds(image_size=SIDE, augment=ALL | {"cutout": 0.4}, normalize="unit", max_boxes=6)  # type: ignore[arg-type]
    images, labels = torch.full((8, 3, SIDE, SIDE), 200, dtype=torch.uint8), labels_of(8)
    changed, moved = data.augment(images, labels, seeded(4), epoch=0)
    again, same = data.augment(images, labels, seeded(4), epoch=0)
    assert torch.equal(changed, again) and torch.equal(moved, same)
    assert changed.shape == images.shape and moved.shape == labels.shape and moved.dtype == torch.float32
    without = TwoKinds(image_size=SIDE, augment=ALL, normalize="unit", max_boxes=6).augment(
        images, labels, seeded(4), 0
    )
    assert torch.equal(without[1], moved) and (changed == 0).sum() > (without[0] == 0).sum()


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"augment": {"crop": 4, "crop_fill": "reflect"}}, "`data.augment.crop_fill` reflect would show objects"),
        ({"augment": {"mixup": 0.2}}, "`data.augment.mixup` would leave the boxes behind"),
        ({"augment": {"policy": "rand"}}, "`data.augment.policy` would leave the boxes behind"),
        ({"min_visible": 1.5}, "`data.min_visible` 1.5"),
        ({"max_boxes": 0}, "`data.max_boxes` 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], telling: str) -> None:
    with pytest.raises(UserError) as caught:
        TwoKinds(**options)
    assert telling in str(caught.value)
