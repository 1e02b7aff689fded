from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import fails, numbers, ready, write_mnist

from lightning_cnn.datamodules import (
    MNIST,
    Digits,
)


@pytest.mark.parametrize("split", ["random", "first", "last"])
def test_splits_are_disjoint_and_complete(tmp_path: Path, split: Any) -> None:
    write_mnist(tmp_path)
    data = ready(MNIST(root=str(tmp_path), batch_size=7, val_split=split, val_fraction=0.3))
    train, val = numbers(data.train_dataloader()), numbers(data.val_dataloader())
    assert len(train) == 35
    assert sorted(train + val) == list(range(50))  # and so nothing of the test set, which starts at 200
    expected = {"first": list(range(15)), "last": list(range(35, 50))}
    if split == "random":
        assert val not in expected.values()
        assert val == sorted(val)
    else:
        assert val == expected[split]
    assert numbers(ready(data, "test").test_dataloader()) == list(range(200, 220))
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for images, labels in loader:
            assert torch.equal(images[:, 0, 0, 0].long() % 10, labels)


def test_the_random_split_follows_its_own_seed(tmp_path: Path) -> None:
    write_mnist(tmp_path)

    def val(run_seed: int, split_seed: int) -> list[int]:
        torch.manual_seed(run_seed)
        return numbers(ready(MNIST(root=str(tmp_path), split_seed=split_seed)).val_dataloader())

    assert val(0, 0) == val(1, 0) == val(2, 0)
    assert val(0, 0) != val(0, 1)


def test_the_order_follows_the_seed_of_the_run(tmp_path: Path) -> None:
    write_mnist(tmp_path)

    def train(run_seed: int) -> list[int]:
        torch.manual_seed(run_seed)
        data = ready(MNIST(root=str(tmp_path)))
        torch.manual_seed(99)  # what is drawn later does not change it
        return numbers(data.train_dataloader())

    assert train(0) == train(0)
    assert train(0) != train(1)


@pytest.mark.parametrize(("fraction", "count"), [(0.001, 1), (0.999, 4), (0.5, 2), (0.3, 2)])
def test_no_part_is_empty(tmp_path: Path, fraction: float, count: int) -> None:
    write_mnist(tmp_path, train=5)
    data = ready(MNIST(root=str(tmp_path), val_fraction=fraction))
    assert (len(numbers(data.val_dataloader())), len(numbers(data.train_dataloader()))) == (count, 5 - count)


def test_one_image_can_not_be_split(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=1)
    assert "too few to hold out validation images" in fails(lambda: MNIST(root=str(tmp_path)).setup("fit"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 0}, "`data.batch_size` 0"),
        ({"val_fraction": 0.0}, "`data.val_fraction` 0.0"),
        ({"val_fraction": 1.0}, "`data.val_fraction` 1.0"),
        ({"image_size": 4, "padding": 2}, "`data.image_size` 4 with `data.padding` 2"),
        ({"padding": -1}, "`data.padding` -1"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], says: str) -> None:
    assert says in fails(lambda: Digits(**arguments))
