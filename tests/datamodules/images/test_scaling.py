from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import ready, two_classes, write_all, write_idx, write_mnist
from PIL import Image
from torch import Tensor

from lightning_cnn.datamodules import (
    MNIST,
    Digits,
    ImageDataModule,
    ImageFolder,
)
from lightning_cnn.datamodules.batches import (
    Batch,
    Images,
)
from lightning_cnn.datamodules.images.preprocessing import Preprocessing


def test_statistics_are_those_of_the_training_part_alone(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=10, test=10)
    images = np.full((10, 28, 28), 255, np.uint8)
    images[:4], images[4:8] = 51, 153  # the last two, all white, are held back
    write_idx(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte", images)
    data = ready(MNIST(root=str(tmp_path), val_split="last", batch_size=4))
    assert data.preprocessing.mean == pytest.approx([0.4])
    assert data.preprocessing.std == pytest.approx([0.2])
    for stage in ("validate", "test"):  # the same where only these parts are used
        other = ready(MNIST(root=str(tmp_path), val_split="last"), stage)
        assert other.preprocessing == data.preprocessing
    scaled = torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in data.train_dataloader()])
    assert scaled.unique().tolist() == pytest.approx([-1, 1])
    assert data.preprocessing.unscale(scaled).unique().tolist() == pytest.approx([0.2, 0.6])
    white = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)[0]
    assert white.unique().tolist() == pytest.approx([3])


def test_statistics_of_each_channel(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "val" / name).mkdir(parents=True)
        pixels = np.full((4, 4, 3), [0, 51 * (1 + number), 255], np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "1.png")
        Image.fromarray(255 - pixels).save(tmp_path / "val" / name / "1.png")
    data = ready(ImageFolder(root=str(tmp_path), image_size=4))
    assert data.preprocessing.mean == pytest.approx([0, 0.3, 1])
    assert data.preprocessing.std == pytest.approx([1 / 255, 0.1, 1 / 255])  # a constant channel is not divided by 0


@pytest.mark.parametrize("limit", [None, 1e-9])
def test_statistics_are_measured_part_by_part(
    tmp_path: Path, limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images on disk need not fit into memory, so they are never all there at once."""
    two_classes(tmp_path)
    options: dict[str, Any] = {"root": str(tmp_path), "image_size": 10, "max_memory": limit, "num_workers": 0}
    whole = ready(ImageFolder(**options))
    read: list[int] = []
    take = Images.__getitem__

    def noted(self: Any, index: Tensor) -> Batch:
        read.append(len(index))
        return take(self, index)

    monkeypatch.setattr(Images, "__getitem__", noted)
    monkeypatch.setattr("lightning_cnn.datamodules.images.base.CHUNK_BYTES", 3 * 10 * 10 * 2)
    parts = ready(ImageFolder(**options))
    count = len(whole._sets["train"])  # type: ignore[arg-type]
    assert max(read) == 2 and sum(read) == count > 2
    assert parts.preprocessing == whole.preprocessing
    images = torch.cat([images for images, _ in whole.train_dataloader()]).double() / 255
    assert parts.preprocessing.mean == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert parts.preprocessing.std == pytest.approx(images.std((0, 2, 3), correction=0).tolist())


def test_unit_scaling(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = ready(MNIST(root=str(tmp_path), normalize="unit"), "test")
    assert "train" not in data._sets  # nothing to be measured
    (images, labels) = next(iter(data.test_dataloader()))
    assert torch.equal(data.on_after_batch_transfer((images, labels), 0)[0], images / 255)


@pytest.mark.parametrize("kind", [MNIST, ImageFolder])
def test_padding_is_a_black_border(tmp_path: Path, kind: type[ImageDataModule]) -> None:
    write_all(tmp_path)
    plain = ready(kind(root=str(tmp_path), image_size=28, val_split="last"))
    padded = ready(kind(root=str(tmp_path), image_size=32, padding=2, val_split="last"))
    for (small, _), (large, _) in zip(plain.val_dataloader(), padded.val_dataloader(), strict=True):
        assert large.shape[-2:] == (32, 32)
        assert torch.equal(large[..., 2:-2, 2:-2], small)
        large[..., 2:-2, 2:-2] = 0
        assert not large.any()


def test_padding_alone_makes_the_images_larger() -> None:
    data = Digits(padding=2)
    assert data.image_size == 32
    assert next(iter(ready(data).val_dataloader()))[0].shape[-2:] == (32, 32)


def test_smaller_images_are_means_not_samples(tmp_path: Path) -> None:
    write_mnist(tmp_path, test=3)
    striped = np.zeros((3, 28, 28), np.uint8)
    striped[:, :, ::4] = 200
    write_idx(tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte", striped)
    write_idx(tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8))
    images, _ = next(iter(ready(MNIST(root=str(tmp_path), image_size=7), "test").test_dataloader()))
    assert images.shape == (3, 1, 7, 7)
    assert images.min() > 30 and images.max() < 80


def test_resize_modes(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :2], pixels[:, 2:6], pixels[:, 6:] = 10, 100, 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")

    def row(resize: Any, size: int = 4) -> list[list[int]]:
        image = Preprocessing(size, 1, resize=resize).read(tmp_path / "wide.png")[0]
        return [[int(pixel) for pixel in line] for line in image]

    assert row("crop") == [[100] * 4] * 4
    assert row("pad", 8) == [[0] * 8] * 2 + [[10] * 2 + [100] * 4 + [200] * 2] * 4 + [[0] * 8] * 2
    (stretched,) = {tuple(line) for line in row("stretch")}
    assert stretched[0] < 60 < stretched[1] < 110 < stretched[3]
    assert ImageFolder(root=str(two_classes(tmp_path)), resize="crop").preprocessing.resize == "crop"
