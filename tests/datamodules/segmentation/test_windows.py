import math

import numpy as np
import pytest
import torch
from mask_sets import SIZES, scene
from torch import Tensor

from lightning_cnn.datamodules.images.augmentation import Augmentation
from lightning_cnn.datamodules.segmentation.warping import surroundings, warp_both
from lightning_cnn.datamodules.segmentation.windows import (
    CropSampler,
    MaskedImages,
    OrderedCropSampler,
    Ragged,
    WholeSampler,
    Windows,
    window,
)
from lightning_cnn.options import IGNORE


def masked(count: int = 9) -> MaskedImages:
    pairs = [scene(*SIZES[number % 3], number) for number in range(count)]
    images = Ragged.of([torch.from_numpy(image).permute(2, 0, 1) for image, _ in pairs])
    masks = Ragged.of([torch.from_numpy(mask) for _, mask in pairs])
    return MaskedImages(images, masks, masks.shapes)


def test_images_of_different_sizes_lie_in_one_tensor() -> None:
    dataset = masked(4)
    assert len(dataset) == 4
    for number in range(4):
        image, mask = scene(*SIZES[number % 3], number)
        own, classes = dataset.whole(number)
        assert np.array_equal(own.permute(1, 2, 0).numpy(), image) and np.array_equal(classes.numpy(), mask)
    assert own.untyped_storage().data_ptr() == dataset.whole(0)[0].untyped_storage().data_ptr()
    part = dataset.take(torch.tensor([3, 1]))
    assert len(part) == 2 and torch.equal(part.whole(1)[0], dataset.whole(1)[0])
    assert [part.name(position) for position in range(2)] == ["3", "1"]


@pytest.mark.parametrize("size", [(16, 16), (48, 20), (60, 90), (40, 56)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.999), (1.0, 0.3)])
@pytest.mark.parametrize("border", [0, 7])
def test_a_window_is_what_a_plain_loop_cuts(size: tuple[int, int], place: tuple[float, float], border: int) -> None:
    image, mask = (torch.from_numpy(part) for part in scene(40, 56, seed=1))
    pixels, classes = window(image.permute(2, 0, 1), mask, size, place, border)
    firsts = []
    for there, length, share in zip((40, 56), size, place, strict=True):
        places = abs(there - length) + 1
        moved = min(math.floor(share * places), places - 1)
        firsts.append((moved if there >= length else -moved) - border)
    assert classes.shape == (size[0] + 2 * border, size[1] + 2 * border)
    for row in range(classes.shape[0]):
        for column in range(classes.shape[1]):
            y, x = firsts[0] + row, firsts[1] + column
            inside = 0 <= y < 40 and 0 <= x < 56
            assert classes[row, column] == (mask[y, x] if inside else IGNORE)
            assert torch.equal(pixels[:, row, column], image[min(max(y, 0), 39), min(max(x, 0), 55)])


def test_crops_lie_everywhere() -> None:
    """Each place of a crop is as likely as each other, the first and the last ones, too."""
    rows = torch.arange(10, dtype=torch.uint8).view(-1, 1).expand(10, 10).contiguous()
    sampler = CropSampler(4000, side=8, border=0, batch_size=4000, shuffle=True)
    (index,) = sampler
    assert index.places is not None
    firsts = torch.tensor([int(window(rows[None], rows, (8, 8), place.tolist())[1][0, 0]) for place in index.places])
    counts = torch.bincount(firsts, minlength=3)
    assert len(counts) == 3 and (counts - 4000 / 3).abs().max() < 5 * math.sqrt(4000 * 2 / 9)


def test_an_image_smaller_than_the_crop_lies_somewhere_in_it() -> None:
    dataset = masked(3)
    sampler = CropSampler(3, side=96, border=4, batch_size=3, shuffle=True, seed=5)
    (index,) = sampler
    images, masks = dataset[index]
    assert images.shape == (3, 3, 104, 104)
    for position, mask in zip(index.positions.tolist(), masks, strict=True):
        known, (height, width) = mask != IGNORE, dataset.sizes[position].tolist()
        rows, columns = known.any(1).nonzero(), known.any(0).nonzero()
        assert rows.max() - rows.min() < height and columns.max() - columns.min() < width
        assert known.sum() == (dataset.whole(position)[1] != IGNORE).sum()  # the border may not cut it


@pytest.mark.parametrize("kind", [CropSampler, OrderedCropSampler])
def test_crops_are_the_same_on_any_number_of_processes(kind: type[CropSampler]) -> None:
    shuffle = kind is CropSampler

    def crops(world_size: int, epoch: int) -> list[dict[int, list[float]]]:
        found: list[dict[int, list[float]]] = []
        for rank in range(world_size):
            sampler = kind(
                12, side=8, border=2, batch_size=4, shuffle=shuffle, seed=3, rank=rank, world_size=world_size
            )
            sampler.set_epoch(epoch)
            for number, index in enumerate(sampler):
                found += [{} for _ in range(number + 1 - len(found))]
                assert index.places is not None and index.size == (8, 8) and index.border == 2
                found[number] |= dict(zip(index.positions.tolist(), index.places.tolist(), strict=True))
        return found

    alone = crops(1, epoch=2)
    assert alone == crops(2, epoch=2) == crops(4, epoch=2)
    assert sorted(position for batch in alone for position in batch) == [*range(12)]
    assert (alone == crops(1, epoch=3)) == (not shuffle)


def test_whole_images_are_padded_the_same_on_any_number_of_processes() -> None:
    dataset = masked(9)
    for world_size in (1, 2):
        padded = [
            (position, index.size)
            for rank in range(world_size)
            for index in WholeSampler(dataset, batch_size=4, shuffle=False, rank=rank, world_size=world_size)
            for position in index.positions.tolist()
        ]
        # 40x56, 48x48 and 70x33 in turns; the last batch has five images
        assert sorted(padded) == [(position, (96, 64)) for position in range(9)]
    assert dataset.common_size(torch.tensor([1])) == (64, 64)
    assert dataset.common_size(torch.tensor([0, 1])) == (64, 64)


def naive(matrix: Tensor, mask: Tensor, bends: Tensor | None, side: int) -> tuple[Tensor, Tensor]:
    """The class that a plain loop finds for each pixel, and how near to another pixel it has looked."""
    height, width = mask.shape
    found, doubt = torch.full((side, side), IGNORE), torch.zeros(side, side)
    for row in range(side):
        for column in range(side):
            u, v = (2 * column + 1) / side - 1, (2 * row + 1) / side - 1
            x = float(matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2]) * side / 2 + width / 2 - 0.5
            y = float(matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2]) * side / 2 + height / 2 - 0.5
            if bends is not None:
                x, y = x + float(bends[row, column, 0]), y + float(bends[row, column, 1])
            doubt[row, column] = max(abs(x - round(x)), abs(y - round(y)))
            if 0 <= round(y) < height and 0 <= round(x) < width:
                found[row, column] = mask[round(y), round(x)]
    return found, doubt


@pytest.mark.parametrize("changes", [{"rotation": 40}, {"zoom": 0.4, "flip": True}, {"shift": 0.3, "elastic": 3}])
def test_masks_are_warped_as_a_plain_loop_does(changes: dict[str, float]) -> None:
    augmentation = Augmentation(**changes)  # type: ignore[arg-type]
    masks = torch.stack([torch.from_numpy(scene(44, 52, seed)[1]) for seed in range(2)])
    images = (masks[:, None].float() / 3).expand(-1, 3, -1, -1)
    warped, classes = warp_both(augmentation, images, masks, 24, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    matrices = augmentation.matrices(2, generator, masks.device)
    bends = augmentation.bends(2, (24, 24), generator)
    rows = zip(warped, classes, masks, matrices, [None] * 2 if bends is None else bends, strict=True)
    for image, mask, own, matrix, bend in rows:
        expected, doubt = naive(matrix, own, bend, 24)
        sure = doubt < 0.499
        assert sure.float().mean() > 0.8  # a zoom alone looks at whole rows between two pixels
        assert torch.equal(mask[sure].long(), expected[sure])
        # the image went the same way: where all neighbors are of one class, its pixels say which
        alike = torch.nn.functional.max_pool2d(own[None, None].float(), 3, 1, 1) == -torch.nn.functional.max_pool2d(
            -own[None, None].float(), 3, 1, 1
        )
        inner, _ = naive(matrix, torch.where(alike[0, 0], own, IGNORE), bend, 24)
        certain = sure & (inner != IGNORE)
        assert certain.float().mean() > 0.1
        assert torch.allclose(image[0][certain] * 3, inner[certain].float(), atol=1e-4)


def test_a_flip_alone_moves_no_pixel_halfway() -> None:
    masks = torch.stack([torch.from_numpy(scene(32, 32, seed)[1]) for seed in range(16)])
    images = torch.rand(16, 1, 32, 32)
    flipped, classes = warp_both(Augmentation(flip=True), images, masks, 32, torch.Generator().manual_seed(0))
    mirrored = [bool(torch.equal(one, other.flip(-1))) for one, other in zip(flipped, images, strict=True)]
    assert 3 < sum(mirrored) < 13
    for one, mask, own, is_mirrored in zip(flipped, classes, masks, mirrored, strict=True):
        assert torch.equal(mask, own.flip(-1) if is_mirrored else own)
        assert is_mirrored or torch.equal(one, images[[torch.equal(own, other) for other in masks].index(True)])


@pytest.mark.parametrize("changes", [{"rotation": 30, "zoom": 0.2}, {"shift": 0.2}, {"rotation": 180}, {"elastic": 2}])
def test_what_surrounds_a_crop_suffices(changes: dict[str, float]) -> None:
    """No pixel of a crop in the middle of a large image is without a class, but for the strongest deformations."""
    augmentation = Augmentation(**changes)  # type: ignore[arg-type]
    border = surroundings(augmentation, 32)
    masks = torch.ones(200, 32 + 2 * border, 32 + 2 * border, dtype=torch.uint8)
    _, classes = warp_both(augmentation, masks[:, None].float(), masks, 32, torch.Generator().manual_seed(2))
    missing = (classes != 1).float().mean()
    assert 0 < missing < 1e-3 if augmentation.elastic else missing == 0  # beyond three standard deviations
    assert surroundings(Augmentation(), 32) == surroundings(Augmentation(flip=True), 32) == 0


def test_windows_without_a_place_begin_at_the_top_left() -> None:
    dataset = masked(3)
    images, masks = dataset[Windows(torch.tensor([2]), (20, 20))]
    image, mask = dataset.whole(2)
    assert torch.equal(images[0], image[:, :20, :20]) and torch.equal(masks[0], mask[:20, :20])
