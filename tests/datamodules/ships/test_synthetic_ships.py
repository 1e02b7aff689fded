"""Rendered ships: masks and boxes of one scene agree, and a seed gives the same scenes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from lightning_cnn.datamodules.detection.annotations import CROWD
from lightning_cnn.datamodules.ships import rendering
from lightning_cnn.datamodules.ships.hulls import draw_fleet
from lightning_cnn.datamodules.ships.rendering import Scenes, render
from lightning_cnn.datamodules.ships.scenery import Draws
from lightning_cnn.datamodules.ships.synthetic_ships import SyntheticShipBoxes, SyntheticShips
from lightning_cnn.errors import UserError
from lightning_cnn.options import IGNORE

SIDE, COUNT, MOST = 64, 96, 6


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return render(COUNT, SIDE, 5, MOST)


def each(scenes: Scenes) -> Iterator[tuple[Tensor, Tensor, list[tuple[int, list[int]]]]]:
    """The image, the mask, and class and box of the ships of each scene."""
    ships = scenes.ships
    for number, (image, mask) in enumerate(zip(scenes.images, scenes.masks, strict=True)):
        rows = range(ships.starts[number], ships.starts[number + 1])
        yield image, mask, [(int(ships.classes[row]), ships.boxes[row].astype(int).tolist()) for row in rows]


def test_masks_and_boxes_are_of_the_same_ships(scenes: Scenes) -> None:
    assert scenes.images.shape == (COUNT, 3, SIDE, SIDE) and scenes.images.dtype == torch.uint8
    assert scenes.masks.shape == (COUNT, SIDE, SIDE) and set(scenes.masks.unique().tolist()) <= {0, 1, IGNORE}
    for _, mask, ships in each(scenes):
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        for kind, (left, top, right, bottom) in ships:
            window = mask[top:bottom, left:right]
            inside[top:bottom, left:right] = True
            assert 0 <= left < right <= SIDE and 0 <= top < bottom <= SIDE and kind in (0, CROWD)
            assert (window > 0).any(0)[[0, -1]].all() and (window > 0).any(1)[[0, -1]].all()  # tight
            assert ((window == 1).any() and kind == 0) or ((window == IGNORE).any() and kind == CROWD)
        assert not mask[~inside].any()


def test_ships_do_not_touch_and_boxes_are_those_of_connected_pixels(scenes: Scenes) -> None:
    for _, mask, ships in each(scenes):
        _, count = ndimage.label(mask > 0, np.ones((3, 3)))
        assert count == len(ships)
        found = [
            [part[1].start, part[0].start, part[1].stop, part[0].stop]
            for part in ndimage.find_objects(ndimage.label(mask > 0, np.ones((3, 3)))[0])
        ]
        assert sorted(found) == sorted(box for _, box in ships)


def test_there_is_variety(scenes: Scenes) -> None:
    lengths = scenes.ships.lengths
    assert 0.1 < (lengths == 0).mean() < 0.3 and 3 <= lengths.max() <= MOST and 1 < lengths.mean() < 3
    sides = (scenes.ships.boxes[:, 2:] - scenes.ships.boxes[:, :2]).max(1)
    assert sides.min() < 9 and sides.max() > 30
    fleet = draw_fleet(Draws(500, torch.Generator().manual_seed(0)), SIDE, MOST)
    headings = torch.histc(fleet.heading, 8, 0, 2 * torch.pi) / len(fleet)
    assert (headings - 1 / 8).abs().max() < 0.04 and (fleet.length / fleet.width).min() > 2
    assert 0.3 < (fleet.wake > 0).float().mean() < 0.6 and set(fleet.kind.tolist()) == {0, 1, 2, 3}
    brightness = scenes.images.float().mean((1, 2, 3))
    assert brightness.std() > 20  # seas, land and clouds


def test_ships_differ_from_the_water_around_them(scenes: Scenes) -> None:
    differences = []
    for image, mask, ships in each(scenes):
        for kind, (left, top, right, bottom) in ships:
            if kind == 0:
                ship = mask[top:bottom, left:right] == 1
                near = image[:, max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3].float()
                water = mask[max(top - 3, 0) : bottom + 3, max(left - 3, 0) : right + 3] == 0
                shown = image[:, top:bottom, left:right].float()[:, ship].mean(1)
                differences.append(float((shown - near[:, water].mean(1)).abs().max()))
    assert np.median(differences) > 30 and np.quantile(differences, 0.1) > 10


def test_a_seed_gives_the_same_scenes_whatever_their_number(scenes: Scenes) -> None:
    fewer = render(7, SIDE, 5, MOST)
    assert torch.equal(fewer.images, scenes.images[:7]) and torch.equal(fewer.masks, scenes.masks[:7])
    first = scenes.ships.select(range(7))
    assert np.array_equal(fewer.ships.boxes, first.boxes) and np.array_equal(fewer.ships.classes, first.classes)
    assert not torch.equal(render(7, SIDE, 6, MOST).images, fewer.images)


def test_clouds_hide_ships(monkeypatch: pytest.MonkeyPatch) -> None:
    def overcast(draws: Draws, size: int) -> tuple[Tensor, Tensor]:
        clouds = torch.zeros(draws.count, 1, size, size)
        clouds[..., : size // 2] = 1  # over the left half
        return clouds, torch.zeros_like(clouds)

    monkeypatch.setattr(rendering, "draw_clouds", overcast)
    monkeypatch.setattr(rendering, "CLOUDY", 1.1)
    half, kinds = SIDE // 2, set()
    for image, mask, ships in each(render(16, SIDE, 0, MOST)):
        assert not (mask[:, :half] == 1).any() and image[:, :, : half - 2].float().std() < 12
        for kind, (left, _, right, _) in ships:
            kinds.add(kind)
            assert (kind == CROWD) if right <= half else (left < half or kind == 0)
    assert kinds == {0, CROWD}


def test_data_modules() -> None:
    few: dict[str, Any] = {"train_images": 12, "test_images": 5, "image_size": 64, "seed": 2}
    masks, boxes = SyntheticShips(**few), SyntheticShipBoxes(**few, max_ships=4)
    scenes = render(5, 64, 4, 4)
    images, labels = boxes.load(train=False)
    assert torch.equal(images, scenes.images) and labels.shape == (5, 4, 5) and boxes.hparams["max_ships"] == 4
    there = labels[..., 0] != -1
    assert there.sum(1).tolist() == scenes.ships.lengths.tolist()
    assert torch.equal(labels[there][:, 1:], torch.from_numpy(scenes.ships.boxes))
    images, pixels = masks.load(train=True)
    assert torch.equal(pixels, render(12, 64, 5, 6).masks) and images.shape == (12, 3, 64, 64)
    boxes.setup("fit")
    assert len(boxes.dataset("train")) == 11 and boxes.class_names == ("ship",)
    assert masks.has_background and masks.class_names == ("background", "ship")


@pytest.mark.parametrize(("option", "value"), [("image_size", 8), ("max_ships", 0), ("train_images", 1)])
def test_wrong_options(option: str, value: int) -> None:
    for kind in (SyntheticShips, SyntheticShipBoxes):
        with pytest.raises(UserError, match=f"`data.{option}` {value}"):
            kind(**{option: value})  # type: ignore[arg-type]
