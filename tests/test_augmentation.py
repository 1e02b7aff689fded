import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_cnn.datamodules import Digits
from lightning_cnn.datamodules.augmentation import Augmentation, AugmentOptions
from lightning_cnn.datamodules.batches import Batch
from lightning_cnn.errors import UserError

ALL: AugmentOptions = {"shift": 0.1, "flip": True, "rotation": 20, "zoom": 0.2, "cutout": 0.3}


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> "Draws":
    return Draws(monkeypatch)


class Draws:
    """Stands in for `torch.rand`: gives chosen numbers, one list of numbers for each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, *numbers: float | list[float]) -> None:
        """Chooses what the next calls give; a single number is given to all images."""
        given: Iterator[float | list[float]] = iter(numbers)

        def rand(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
            return torch.tensor(next(given)).expand(shape[::-1]).T.contiguous()

        self.monkeypatch.setattr(torch, "rand", rand)


def noise(count: int = 2, channels: int = 3, side: int = 8) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(images: Tensor, right: int, down: int) -> Tensor:
    """Shifted by whole pixels; the border is repeated."""
    side = images.shape[-1]
    rows, columns = ((torch.arange(side) - by).clamp(0, side - 1) for by in (down, right))
    return images[..., rows, :][..., columns]


# one draw after the other: [flip], angle, zoom, shift across, shift down; 0.5 is the middle of the range


@pytest.mark.parametrize(
    ("across", "down", "right", "below"),
    [(0.0, 0.5, 2, 0), (1.0, 0.5, -2, 0), (0.5, 0.0, 0, 2), (0.75, 0.25, -1, 1), (0.5, 0.5, 0, 0)],
)
def test_shift_by_whole_pixels(draws: Draws, across: float, down: float, right: int, below: int) -> None:
    images = noise()
    draws(0.5, 0.5, across, down)
    shifted = Augmentation(shift=0.25).warp(images, seeded())  # 2 of 8 pixels
    assert torch.allclose(shifted, moved(images, right, below), atol=1e-5)


def test_shift_by_half_a_pixel(draws: Draws) -> None:
    images = noise()
    draws(0.5, 0.5, 0.0, 0.5)
    shifted = Augmentation(shift=1 / 16).warp(images, seeded())
    assert torch.allclose(shifted, (images + moved(images, 1, 0)) / 2, atol=1e-5)


def test_flip(draws: Draws) -> None:
    images = noise()
    draws([0.49, 0.5])
    assert torch.equal(Augmentation(flip=True).warp(images, seeded()), torch.stack([images[0].flip(-1), images[1]]))


def test_flip_with_shift(draws: Draws) -> None:
    images = noise()
    draws([0.0, 1.0], 0.5, 0.5, 0.0, 0.5)
    found = Augmentation(flip=True, shift=0.25).warp(images, seeded())
    mirrored = images[0].flip(-1)
    assert torch.allclose(found[1], moved(images[1], 2, 0), atol=1e-5)
    assert torch.allclose(found[0], mirrored[..., [2, 3, 4, 5, 6, 7, 7, 7]], atol=1e-5)


def test_flip_with_rotation(draws: Draws) -> None:
    images = noise()
    draws([0.0, 1.0], 1.0, 0.5, 0.5, 0.5)
    found = Augmentation(flip=True, rotation=90).warp(images, seeded())
    turned = torch.rot90(images, 1, (-2, -1))
    assert torch.allclose(found, torch.stack([turned[0].flip(-1), turned[1]]), atol=1e-5)


def test_half_of_the_images_are_flipped() -> None:
    images = torch.arange(2.0).expand(2000, 1, 2, 2)
    share = Augmentation(flip=True).warp(images, seeded())[:, 0, 0, 0].mean()
    assert share.item() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("draw", "turns"), [(1.0, 1), (0.0, -1), (0.5, 0)])
def test_rotation_by_right_angles(draws: Draws, draw: float, turns: int) -> None:
    images = noise()
    draws(draw, 0.5, 0.5, 0.5)
    rotated = Augmentation(rotation=90).warp(images, seeded())
    assert torch.allclose(rotated, torch.rot90(images, turns, (-2, -1)), atol=1e-5)


def test_rotation_by_half_a_turn(draws: Draws) -> None:
    images = noise()
    draws(1.0, 0.5, 0.5, 0.5)
    assert torch.allclose(Augmentation(rotation=180).warp(images, seeded()), images.flip(-1, -2), atol=1e-5)


@pytest.mark.parametrize(("draw", "scale"), [(1.0, 1.5), (0.0, 0.5), (0.5, 1.0)])
def test_zoom(draws: Draws, draw: float, scale: float) -> None:
    place = torch.arange(8) - 3.5  # pixels from the middle
    ramp = place.expand(2, 1, 8, 8)
    draws(0.5, draw, 0.5, 0.5)
    zoomed = Augmentation(zoom=0.5).warp(ramp, seeded())
    assert torch.allclose(zoomed, (place / scale).clamp(-3.5, 3.5).expand_as(ramp), atol=1e-5)
    draws(0.5, draw, 0.5, 0.5)
    assert torch.allclose(Augmentation(zoom=0.5).warp(ramp.mT, seeded()), zoomed.mT, atol=1e-5)


def test_cutout(draws: Draws) -> None:
    images = noise(3) + 1
    draws([0.5, 0.5, 0.0], [0.5, 0.25, 0.0])  # centres: middle; two to the left of it; the corner
    cut = Augmentation(cutout=0.5).cut(images, seeded())
    expected = images.clone()
    expected[0, :, 2:6, 2:6] = 0
    expected[1, :, 2:6, 0:4] = 0
    expected[2, :, 0:2, 0:2] = 0
    assert torch.equal(cut, expected)


def test_draws_fill_their_range() -> None:
    place = torch.arange(101) - 50.0
    across = place.expand(1000, 1, 101, 101)
    by = (
        across.gather(3, torch.full((1000, 1, 101, 1), 50)) - Augmentation(shift=0.2).warp(across, seeded())[..., 50:51]
    )
    middle = by[:, 0, 50, 0]
    assert middle.abs().max() <= 20.2 and middle.min() < -19 and middle.max() > 19
    assert middle.mean().abs() < 1 and abs(middle.std() - 20.2 / 3**0.5) < 1


@pytest.mark.parametrize("options", [{"shift": 0.3}, {"flip": True}, {"rotation": 90}, {"zoom": 0.5}, {"cutout": 0.4}])
def test_each_image_has_its_own_draw(options: AugmentOptions) -> None:
    augmentation = Augmentation.from_options(options)
    images = noise(1).expand(16, -1, -1, -1)

    def augmented(seed: int) -> Tensor:
        generator = seeded(seed)
        return augmentation.cut(augmentation.warp(images, generator), generator)

    first = augmented(1)
    assert len({image.numpy().tobytes() for image in first}) > (1 if options == {"flip": True} else 10)
    assert torch.equal(first, augmented(1))
    assert not torch.equal(first, augmented(2))
    assert first.shape == images.shape and first.dtype == images.dtype
    assert first.isfinite().all()


@pytest.mark.parametrize(
    "options", [None, {}, {"shift": 0.0, "flip": False, "rotation": 0, "zoom": 0.0, "cutout": 0.0}]
)
def test_off_means_unchanged(options: AugmentOptions | None) -> None:
    images, augmentation = noise(), Augmentation.from_options(options)
    assert augmentation.warp(images, seeded()) is images
    assert augmentation.cut(images, seeded()) is images


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shift": 1.5}, "--data.augment.shift 1.5: it must lie between 0 and 1"),
        ({"shift": -0.1}, "--data.augment.shift -0.1"),
        ({"zoom": 1.0}, "--data.augment.zoom 1.0: it must lie between 0 and 0.99"),
        ({"rotation": 181}, "--data.augment.rotation 181: it must lie between 0 and 180"),
        ({"cutout": 2.0}, "--data.augment.cutout 2.0"),
        ({"rotate": 10}, "unknown option --data.augment.rotate; did you mean rotation?"),
        ({"xyz": 1}, "unknown option --data.augment.xyz; there are shift, flip, rotation, zoom, cutout"),
    ],
)
def test_wrong_options(options: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Digits(augment=options)
    assert str(caught.value).startswith(says)


def test_the_options_are_the_fields() -> None:
    assert set(inspect.get_annotations(AugmentOptions)) == {field.name for field in dataclasses.fields(Augmentation)}
    assert Augmentation.from_options(ALL) == Augmentation(0.1, True, 20, 0.2, 0.3)


# inside a training


def trainer_at(step: int = 0, rank: int = 0, training: bool = True) -> Any:
    """As much of a trainer as the datamodule looks at."""
    progress = SimpleNamespace(total=SimpleNamespace(ready=step))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(training=training, fit_loop=loop, global_rank=rank, current_epoch=0)


def batch_of(data: Digits, **at: Any) -> Tensor:
    data.trainer = trainer_at(**at)
    images, labels = data._sets["train"][torch.arange(8)]
    return data.on_after_batch_transfer((images, labels), 0)[0]


def test_the_draw_follows_seed_step_and_process() -> None:
    torch.manual_seed(3)
    data, again = Digits(augment=ALL), Digits(augment=ALL)
    data.setup("fit")
    again.setup("fit")
    first = batch_of(data, step=5)
    torch.rand(7)  # other draws don't matter
    assert torch.equal(first, batch_of(again, step=5))
    assert not torch.equal(first, batch_of(data, step=6))
    assert not torch.equal(first, batch_of(data, step=5, rank=1))
    torch.manual_seed(4)
    other = Digits(augment=ALL)
    other.setup("fit")
    assert not torch.equal(first, batch_of(other, step=5))


def test_only_in_training() -> None:
    data = Digits(augment=ALL)
    data.setup("fit")
    plain = batch_of(data, training=False)
    data.trainer = None
    assert torch.equal(plain, data.on_after_batch_transfer(data._sets["train"][torch.arange(8)], 0)[0])
    assert not torch.equal(plain, batch_of(data))
    unchanged = Digits()
    unchanged.setup("fit")
    assert torch.equal(plain, batch_of(unchanged))


def test_cutout_is_the_mean_colour() -> None:
    data = Digits(augment={"cutout": 0.5})
    data.setup("fit")
    before, after = batch_of(data, training=False), batch_of(data)
    assert (after[before != after] == 0).all()  # after standardising, zero is the mean
    assert (before != after).flatten(1).any(1).all()


class Watcher(LightningModule):
    """Learns nothing and keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shown: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.shown["train"].append(batch[0])
        return self.weight * 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.shown["val"].append(batch[0])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.shown["test"].append(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class InOrder(Digits):
    """Always the same order, so that batches can be compared from epoch to epoch."""

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", shuffle=False)


def shown(augment: AugmentOptions | None, seed: int = 0) -> dict[str, list[Tensor]]:
    torch.manual_seed(seed)
    model, data = Watcher(), InOrder(augment=augment, batch_size=64)
    trainer = Trainer(
        max_epochs=2,
        limit_train_batches=2,
        limit_val_batches=1,
        limit_test_batches=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
    )
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    return model.shown


def test_in_a_real_training(tmp_path: Path) -> None:
    plain, augmented, again = shown(None), shown(ALL), shown(ALL)
    assert [len(plain[part]) for part in ("train", "val", "test")] == [4, 3, 1]  # a sanity check before the first epoch
    assert torch.equal(plain["train"][0], plain["train"][2])
    for part in ("val", "test"):
        assert all(torch.equal(one, other) for one, other in zip(plain[part], augmented[part], strict=True))
    assert all(torch.equal(one, other) for one, other in zip(augmented["train"], again["train"], strict=True))
    assert len({batch.numpy().tobytes() for batch in augmented["train"]}) == 4  # anew in each epoch
    assert not any(torch.equal(one, other) for one, other in zip(plain["train"], augmented["train"], strict=True))
