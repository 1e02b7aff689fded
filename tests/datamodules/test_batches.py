from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from image_sets import equal, fails, numbers, ready, two_classes, write_mnist
from pytorch_lightning import Trainer
from torch import Tensor

from lightning_cnn.datamodules import (
    MNIST,
    ImageFolder,
)
from lightning_cnn.datamodules.batches import (
    Batch,
    BatchSampler,
    Images,
    OrderedBatchSampler,
    image_name,
    moved,
)
from lightning_cnn.modules import ImageClassifier


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [4, 5, 11, 12, 13, 23, 24, 25, 26, 27, 31, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_position_exactly_once(world: int, length: int, shuffle: bool) -> None:
    kind = BatchSampler if shuffle else OrderedBatchSampler
    shares = [kind(length, 12, shuffle, 5, rank, world) for rank in range(world)]
    for sampler in shares:
        sampler.set_epoch(3)
    found = [list(sampler) for sampler in shares]
    assert {len(share) for share in found} == {len(sampler) for sampler in shares} == {len(found[0])}
    order: list[int] = []
    for batch in zip(*found, strict=True):
        sizes = [len(share) for share in batch]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= (2 if shuffle and length >= 2 * world else 1)
        order += [int(batch[place % world][place // world]) for place in range(sum(sizes))]
    assert sorted(order) == list(range(length))
    alone = kind(length, 12, shuffle, 5)
    alone.set_epoch(3)
    assert order == torch.cat(list(alone)).tolist()  # the same whatever the number of processes
    assert (order == list(range(length))) != shuffle
    assert all(share.dtype == torch.int64 for shares in found for share in shares)


def test_sizes_of_batches() -> None:
    def sizes(length: int, shuffle: bool = False, world: int = 1) -> list[int]:
        return [len(batch) for batch in BatchSampler(length, 4, shuffle, world_size=world)]

    assert sizes(8) == [4, 4]
    assert sizes(9) == [4, 4, 1]
    assert sizes(9, shuffle=True) == [4, 5]  # batch normalisation can't train on one image
    assert sizes(10, shuffle=True) == [4, 4, 2]
    assert sizes(11, shuffle=True, world=2) == [2, 4]
    assert sizes(3, shuffle=True) == [3]
    assert sizes(1, shuffle=True) == [1]


def test_a_new_order_each_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = BatchSampler(50, 8, True, seed)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler)).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(1, epoch)) for epoch in range(5)}) == 5
    assert order(1, 0) != order(2, 0)


def test_batches_that_can_not_be_divided() -> None:
    assert fails(lambda: BatchSampler(100, 0, True)) == "`data.batch_size` 0: it must be at least 1"
    message = fails(lambda: BatchSampler(100, 10, True, world_size=4))
    assert message == "`data.batch_size` 10 is not a multiple of the 4 processes: try 8"
    assert "try 4" in fails(lambda: BatchSampler(100, 1, True, world_size=4))
    assert "3 images are too few for 4 processes" in fails(lambda: BatchSampler(3, 4, True, world_size=4))


@pytest.mark.parametrize("world", [1, 2])
def test_each_process_loads_its_share(tmp_path: Path, world: int) -> None:
    write_mnist(tmp_path)
    shares = []
    for rank in range(world):
        data = ready(MNIST(root=str(tmp_path), batch_size=16))
        device = torch.device("cpu")
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=rank, world_size=world, overfit_batches=0, strategy=SimpleNamespace(root_device=device)
        )
        shares.append([numbers(data.train_dataloader()), numbers(data.val_dataloader())])
        assert len(data.train_dataloader()) == 3
    everything = [number for share in shares for part in share for number in part]
    assert sorted(everything) == list(range(50))


class Recorder(ImageClassifier):
    """Notes the images of each training batch as they come from the loader."""

    def __init__(self) -> None:
        super().__init__("ffnn")
        self.seen: list[list[int]] = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append((batch[0][:, 0, 0, 0] * 255).round().int().tolist())


@pytest.mark.parametrize("overfit", [0.0, 2])
def test_lightning_leaves_the_loader_in_place(tmp_path: Path, overfit: float) -> None:
    write_mnist(tmp_path)
    model, data = Recorder(), MNIST(root=str(tmp_path), batch_size=16, normalize="unit", val_split="last")
    trainer = Trainer(
        max_epochs=2,
        overfit_batches=overfit,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    if overfit:  # the same two batches again and again
        assert model.seen == [list(range(16)), list(range(16, 32))] * 2
    else:
        first, second = ([number for batch in half for number in batch] for half in (model.seen[:3], model.seen[3:]))
        assert sorted(first) == sorted(second) == list(range(40))
        assert first != second != sorted(second)


def test_one_call_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = Images.__getitem__

    def counted(self: Images, index: Tensor) -> Batch:
        calls.append(len(index))
        return original(self, index)

    write_mnist(tmp_path)
    data = ready(ready(MNIST(root=str(tmp_path), batch_size=16)), "test")
    monkeypatch.setattr(Images, "__getitem__", counted)
    for loader, sizes in (
        (data.train_dataloader(), [16, 16, 8]),
        (data.val_dataloader(), [10]),
        (data.test_dataloader(), [16, 4]),
    ):
        calls.clear()
        assert len(list(loader)) == len(sizes)
        assert calls == sizes
        assert loader.num_workers == 0


def test_images_are_moved_to_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path)
    data = ready(ImageFolder(root=str(tmp_path), image_size=8))
    for part in (data._sets["train"], data._sets["val"]):
        count = len(part)  # type: ignore[arg-type]
        other = moved(part, torch.device("meta"))
        assert isinstance(other, Images) and isinstance(other.images, Tensor)
        assert {other.images.device.type, other.labels.device.type} == {"meta"}
        assert other.images.shape == (count, 3, 8, 8)
        assert [image_name(other, row) for row in range(count)] == [image_name(part, row) for row in range(count)]
        assert moved(other, torch.device("meta")) is other
        assert moved(part, torch.device("cpu")) is part
        with monkeypatch.context() as context:
            context.setattr(Tensor, "to", lambda self, device: self)  # a device whose memory can be looked at
            arrived = moved(part, torch.device("meta"))
            assert equal([arrived[torch.arange(count)]], [part[torch.arange(count)]])


def test_images_on_the_device_train_alike(tmp_path: Path) -> None:
    two_classes(tmp_path)

    def loss(**options: Any) -> float:
        torch.manual_seed(0)
        data = ImageFolder(root=str(tmp_path), image_size=8, batch_size=4, augment={"crop": 2, "cutmix": 1}, **options)
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
        )
        trainer.fit(ImageClassifier("ffnn", num_classes=2, in_channels=3, image_size=8), data)
        return trainer.callback_metrics["val/loss"].item()

    expected = loss()
    assert loss(on_device=True) == expected
    with pytest.warns(UserWarning, match="`data.on_device` true has no effect on images that stay on disk"):
        assert loss(on_device=True, max_memory=1e-9, num_workers=0) == expected
