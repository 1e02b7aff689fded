"""Which images are held out: the same share of each class, or one of several folds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import fails, ready, write_boxes, write_folder, write_table
from torch import Tensor

from lightning_cnn.datamodules import DetectionFolder, Digits, ImageDataModule, ImageFolder, ImageTable, RotatedDigits
from lightning_cnn.datamodules.images.splitting import Split


def labels(*counts: int) -> Tensor:
    """So many images of each class, mixed."""
    found = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


def test_each_class_gives_its_share() -> None:
    classes = labels(*[20] * 60)
    train, val = Split(0.2, "stratified", 0).rows(len(classes), classes, None)
    assert classes[val].bincount().tolist() == [4] * 60 and classes[train].bincount().tolist() == [16] * 60
    assert torch.cat([train, val]).sort().values.tolist() == list(range(1200))
    assert (train.diff() > 0).all() and (val.diff() > 0).all()
    again, other = (Split(0.2, "stratified", seed).rows(1200, classes, None)[1] for seed in (0, 1))
    assert torch.equal(again, val) and not torch.equal(other, val)
    _, plain = Split(0.2, "random", 0).rows(1200, classes, None)
    assert len(plain) == 240 and classes[plain].bincount(minlength=60).unique().numel() > 3


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ((100, 10, 1), 0.1, [10, 1, 0]),  # the only image of a class is learned from
        ((3, 3), 0.5, None),
        ((2, 2, 2, 2), 0.2, None),  # fewer images are held out than there are classes
        ((1, 1), 0.5, None),
    ],
)
def test_small_classes(counts: tuple[int, ...], fraction: float, expected: list[int] | None) -> None:
    classes = labels(*counts)
    train, val = Split(fraction, "stratified", 0).rows(len(classes), classes, None)
    assert len(val) == max(1, round(len(classes) * fraction)) and len(train) + len(val) == len(classes)
    if expected is not None:
        assert classes[val].bincount(minlength=len(counts)).tolist() == expected


@pytest.mark.parametrize("counts", [(20, 10, 5), (7, 7, 2), (9,)])
def test_folds_divide_the_images(counts: tuple[int, ...]) -> None:
    classes = labels(*counts)
    found = [Split(0.2, "random", 3, f"{number}/5").rows(len(classes), classes, None) for number in range(1, 6)]
    assert sorted(torch.cat([val for _, val in found]).tolist()) == list(range(len(classes)))
    for train, val in found:
        assert not {*train.tolist()} & {*val.tolist()} and len(train) + len(val) == len(classes)
        for count, held in zip(counts, classes[val].bincount(minlength=len(counts)).tolist(), strict=True):
            assert count // 5 <= held <= -(-count // 5)
    plain = [Split(0.2, "random", 3, f"{number}/5").rows(11, None, None)[1] for number in range(1, 6)]
    assert sorted(torch.cat(plain).tolist()) == list(range(11))


@pytest.mark.parametrize(
    ("options", "length", "telling"),
    [
        ({"fold": "0/5"}, 9, "`data.fold` 0/5: expected one of several folds"),
        ({"fold": "6/5"}, 9, "`data.fold` 6/5: expected"),
        ({"fold": "1/1"}, 9, "`data.fold` 1/1: expected"),
        ({"fold": "half"}, 9, "`data.fold` half: expected"),
        ({"fold": "1/3", "how": "last"}, 9, "`data.fold` 1/3 with `data.val_split` last"),
        ({"fold": "1/10"}, 9, "9 images are too few for 10 folds"),
        ({"how": "stratified"}, 9, "`data.val_split` stratified requires one class per image"),
        ({"how": "none"}, 9, "`data.val_split` 'none'"),
        ({}, 1, "1 training images are too few"),
    ],
)
def test_splits_that_do_not_work(options: dict[str, Any], length: int, telling: str) -> None:
    given = {"fraction": 0.2, "how": "random", "seed": 0} | options
    assert telling in fails(lambda: Split(**given).rows(length, None, None))  # type: ignore[arg-type]


def test_groups_that_are_too_few() -> None:
    split = Split(0.2, "random", 0, "1/3")
    assert "2 groups are too few for 3 folds" in fails(lambda: split.rows(6, labels(3, 3), list("aaabbb")))
    split = Split(0.2, "first", 0)
    assert "groups are divided at random" in fails(lambda: split.rows(6, labels(3, 3), list("aabbcc")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small folders, tables and boxes."""
    folder = tmp_path_factory.mktemp("root")
    write_folder(folder, {f"train/{name}": 8 for name in ("cat", "dog")})
    write_table(folder, "train/cat", "train/dog")
    write_boxes(folder)
    return folder


@pytest.mark.parametrize("kind", [Digits, ImageFolder, ImageTable, DetectionFolder], ids=lambda kind: kind.__name__)
def test_folds_of_every_kind_of_data(kind: type[ImageDataModule], root: Path) -> None:
    held: list[int] = []
    for number in range(1, 4):
        data = ready(kind(str(root), image_size=8, fold=f"{number}/3"))
        held += data.dataset("val").indices.tolist()
    assert sorted(held) == list(range(len(data.dataset("val").dataset)))


def test_data_with_validation_images_have_no_folds(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{part}/{name}": 3 for part in ("train", "val") for name in "ab"})
    message = fails(lambda: ready(ImageFolder(str(tmp_path), image_size=8, fold="1/3")))
    assert message.startswith("`data.fold` 1/3: the data have validation images of their own")


def test_balanced_batches(tmp_path: Path) -> None:
    """Each class as often as the others, as many images in all, the same for a seed; evaluation sees each once."""
    write_folder(tmp_path, {"train/often": 90, "train/rare": 10}, side=8)
    data = ready(ImageFolder(str(tmp_path), image_size=8, sampler="balanced", batch_size=16))
    first, again = (torch.cat([part for _, part in data.train_dataloader()]) for _ in range(2))
    assert len(first) == 80 and torch.equal(first, again)
    many = data.train_dataloader()
    shares = []
    for epoch in range(40):
        many.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        shares.append(torch.cat([data.dataset("train")[part][1] for part in many.sampler]).float().mean())
    assert abs(float(torch.stack(shares).mean()) - 0.5) < 0.04  # five standard errors of 3,200 draws
    assert torch.cat([part for _, part in data.val_dataloader()]).bincount().tolist() == [18, 2]
    plain = ready(ImageFolder(str(tmp_path), image_size=8, batch_size=16))
    assert torch.cat([part for _, part in plain.train_dataloader()]).bincount().tolist() == [72, 8]


def test_what_has_no_classes_is_not_balanced() -> None:
    assert "`data.sampler` balanced requires one class" in fails(lambda: ready(RotatedDigits(sampler="balanced")))
    assert "`data.sampler` 'fair'" in fails(lambda: Digits(sampler="fair"))  # type: ignore[arg-type]
