"""MNIST's digits over each other (OverlappingDigits), and transformed (AffineMNIST)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import write_idx, write_mnist
from torch.utils.data import Subset

from lightning_cnn.datamodules import AffineMNIST, OverlappingDigits
from lightning_cnn.datamodules.images.affine_mnist import placed, transformed


def write_squares(root: Path, train: int = 60, test: int = 40) -> None:
    """MNIST's files with bright squares of 20x20 pixels, its box of the digits; the value says which one it is."""
    for part, count, first in (("train", train, 50), ("t10k", test, 150)):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 4:24, 4:24] = first + np.arange(count)[:, None, None]
        write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)


def test_pairs_of_digits(tmp_path: Path) -> None:
    write_squares(tmp_path)
    data = OverlappingDigits(str(tmp_path), pairs_per_digit=50, split_seed=3)
    data.setup("fit")
    data.setup("test")
    values, shares = {}, []
    for part, length in {"train": 48, "val": 12, "test": 40}.items():
        pairs = data.dataset(part)
        assert len(pairs) == 50 * length
        images, labels, alone, classes = pairs[torch.arange(len(pairs))]
        assert images.shape == (len(pairs), 1, 36, 36) and alone.shape == (len(pairs), 2, 1, 36, 36)
        assert torch.equal(images, alone.long().sum(1).clamp_max(255).byte())
        assert (labels.sum(1) == 2).all() and (labels.gather(1, classes) == 1).all()
        values[part] = {*alone.amax((2, 3, 4)).flatten().tolist()}
        boxes = (alone > 0).squeeze(2)
        assert (boxes.sum((2, 3)) == 400).all()  # nothing is cut off
        shares.append(boxes.all(1).sum((1, 2)) / 400)
        # all shifts occur equally often, -4 to 4 of the middle
        tops = boxes.any(3).int().argmax(2).flatten()
        assert {*tops.tolist()} == {*range(4, 13)} and abs(float(tops.float().mean()) - 8) < 0.15
        if part == "test":  # which has four digits of each class
            seconds = torch.bincount(classes[:, 1], minlength=10) / len(pairs)
            assert ((seconds - 0.1).abs() < 0.03).all()
    assert not values["train"] & values["val"] and not values["train"] & values["test"]
    assert float(torch.cat(shares).mean()) == pytest.approx(0.72, abs=0.02)  # (1 - 80/27/20)^2
    again = OverlappingDigits(str(tmp_path), pairs_per_digit=50, split_seed=3)
    again.setup("test")
    index = torch.tensor([0, 7, 39])
    assert all(
        torch.equal(a, b) for a, b in zip(again.dataset("test")[index], data.dataset("test")[index], strict=True)
    )
    other = OverlappingDigits(str(tmp_path), pairs_per_digit=50, split_seed=4)
    other.setup("test")
    assert not torch.equal(other.dataset("test")[index][0], data.dataset("test")[index][0])


def test_the_training_of_affine_mnist_sees_shifts_alone(tmp_path: Path) -> None:
    write_squares(tmp_path)
    data = AffineMNIST(str(tmp_path), normalize="unit")
    data.setup("fit")
    assert isinstance(data.dataset("train"), Subset) and data.image_size == 40
    images, labels = data.dataset("train")[torch.arange(48)]
    generator = torch.Generator().manual_seed(0)
    changed = torch.cat([data.augment(images, labels, generator, epoch)[0] for epoch in range(20)])
    whole = {*range(4, 17)}  # 10 in the middle, up to 6 to each side
    data.setup("test")
    shifted = AffineMNIST(str(tmp_path), normalize="unit", test_images="shifted")
    shifted.setup("test")
    fixed = [data.dataset("val")[torch.arange(12)][0], shifted.dataset("test")[torch.arange(40)][0]]
    for squares in (changed, torch.cat(fixed)):
        assert ((squares > 0).sum((1, 2, 3)) == 400).all()  # nothing is cut off
        for dimension in (1, 2):
            starts = (squares > 0).squeeze(1).any(dimension).int().argmax(1)
            assert {*starts.tolist()} <= whole and len({*starts.tolist()}) > 9
            assert abs(float(starts.float().mean()) - 10) < 1.5


def test_training_and_validation_of_affine_mnist_are_alike(tmp_path: Path) -> None:
    """Small digits move no further than large ones: what moves is the image of 28 pixels."""
    images = np.zeros((60, 28, 28), dtype=np.uint8)
    images[:, 12:16, 12:16] = 200
    write_squares(tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte", images)
    data = AffineMNIST(str(tmp_path), normalize="unit", val_fraction=0.5)
    data.setup("fit")
    squares, labels = data.dataset("train")[torch.arange(30)]
    changed, _ = data.augment(squares, labels, torch.Generator().manual_seed(0), 0)
    for moved in (changed, data.dataset("val")[torch.arange(30)][0]):
        starts = (moved > 0).squeeze(1).any(2).int().argmax(1)
        assert starts.min() >= 12 and starts.max() <= 24


def test_the_affine_test_images(tmp_path: Path) -> None:
    """Areas and angles of many squares lie in the ranges of affNIST, and nearly reach their ends."""
    write_mnist(tmp_path)
    squares = torch.zeros(2000, 1, 40, 40, dtype=torch.uint8)
    squares[:, :, 10:30, 10:30] = 200
    changed = transformed(squares, torch.Generator().manual_seed(0))
    area = changed.float().sum((1, 2, 3)) / 200
    # stretching by 0.8 to 1.2 in both directions; rotating and shearing keep the area
    assert 0.64 * 400 * 0.97 < area.min() < 0.72 * 400 and 1.3 * 400 < area.max() < 1.44 * 400 * 1.03
    assert float(area.mean()) == pytest.approx(400, rel=0.02)
    away = placed(changed, torch.Generator().manual_seed(1))
    assert torch.equal(away.flatten(1).sort().values, changed.flatten(1).sort().values)  # nothing is lost
    for dimension in (2, 3):
        lies = (away > 0).any(dimension).squeeze(1)
        assert lies[:, 0].any() and lies[:, -1].any()  # the whole canvas is used
    kinds = [AffineMNIST(str(tmp_path), test_images=kind) for kind in ("affine", "shifted", "affine")]  # type: ignore[arg-type]
    tests = []
    for data in kinds:
        data.setup("test")
        tests.append(data.dataset("test")[torch.arange(20)][0])
    assert torch.equal(tests[0], tests[2]) and not torch.equal(tests[0], tests[1])
