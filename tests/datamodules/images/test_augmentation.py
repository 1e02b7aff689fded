import dataclasses
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_cnn.datamodules import Digits
from lightning_cnn.datamodules.batches import Batch
from lightning_cnn.datamodules.images.augmentation import Augmentation, AugmentOptions
from lightning_cnn.datamodules.images.moves import Fill, elastic_bends, flip_alternately
from lightning_cnn.errors import UserError

ALL: AugmentOptions = {"shift": 0.1, "flip": True, "rotation": 20, "zoom": 0.2, "elastic": 0.5, "cutout": 0.3}
MODERN: AugmentOptions = {"crop": 4, "alternating_flip": True, "mixup": 0.2, "cutmix": 1.0, "policy": "trivial"}


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


def test_elastic_deformations_pass_through_nine_points() -> None:
    """At the corners, the middles of the sides and the middle, the image lies as far away as was drawn."""
    bends = elastic_bends(2000, 3.0, (9, 17), seeded(4))
    assert bends.shape == (2000, 9, 17, 2)
    points = torch.randn(2000, 2, 3, 3, generator=seeded(4)) * 3
    assert torch.allclose(bends[:, ::4, ::8].permute(0, 3, 1, 2), points, atol=1e-4)
    assert abs(points.std() - 3) < 0.05
    ramp = torch.arange(17.0).expand(1, 1, 9, 17) / 17  # its value says from which column a pixel comes
    found = Augmentation(elastic=0.5).warp(ramp, seeded(1)) * 17
    columns = torch.arange(17) + elastic_bends(1, 0.5, (9, 17), after_matrices())[0, :, :, 0]
    assert torch.allclose(found[0, 0], columns.clamp(0, 16), atol=1e-3)


def after_matrices() -> torch.Generator:
    generator = seeded(1)
    Augmentation(elastic=0.5).matrices(1, generator, torch.device("cpu"))
    return generator


def test_cutout(draws: Draws) -> None:
    images = noise(3) + 1
    draws([0.5, 0.5, 0.0], [0.5, 0.25, 0.0])  # centres: middle; two to the left of it; the corner
    cut = Augmentation(cutout=0.5).cut(images, seeded())
    expected = images.clone()
    expected[0, :, 2:6, 2:6] = 0
    expected[1, :, 2:6, 0:4] = 0
    expected[2, :, 0:2, 0:2] = 0
    assert torch.equal(cut, expected)


@pytest.mark.parametrize(("fill", "mode"), [("reflect", "reflect"), ("zero", "constant"), ("nearest", "replicate")])
def test_crop_is_a_random_window_of_an_image_with_a_border(fill: Fill, mode: str) -> None:
    images = noise(900, side=6)
    found = Augmentation(crop=2, crop_fill=fill).shift_pixels(images, seeded())
    windows = F.pad(images, (2, 2, 2, 2), mode).unfold(2, 6, 1).unfold(3, 6, 1)  # 5x5 of them
    same = (windows == found[:, :, None, None]).all(5).all(4).all(1).flatten(1)
    assert (same.sum(1) == 1).all()
    assert same.sum(0).min() > 15 and same.sum(0).max() < 65  # each image has its own, and all are as likely


def test_crop_by_nearly_the_whole_side() -> None:
    images = noise(200, side=6)
    found = Augmentation(crop=5).shift_pixels(images, seeded())
    windows = F.pad(images, (5, 5, 5, 5), "reflect").unfold(2, 6, 1).unfold(3, 6, 1)
    assert (windows == found[:, :, None, None]).all(5).all(4).all(1).flatten(1).any(1).all()


def test_the_alternating_flip_mirrors_each_image_in_every_other_epoch() -> None:
    images = (noise(400) * 255).byte()
    first, second, third = (flip_alternately(images, epoch, seed=3) for epoch in (0, 1, 2))
    as_it_was, mirrored = (first == images).flatten(1).all(1), (first == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, ~as_it_was) and 160 < mirrored.sum() < 240
    assert torch.equal(second, first.flip(-1)) and torch.equal(third, first)
    other = (flip_alternately(images, 0, seed=4) == images).flatten(1).all(1)
    assert 160 < (other == as_it_was).sum() < 240  # another seed, other halves


def test_the_alternating_flip_knows_an_image_in_any_batch() -> None:
    images = (noise(50) * 255).byte()
    flipped = flip_alternately(images, 0, seed=0)
    order = torch.randperm(50, generator=seeded())
    assert torch.equal(flip_alternately(images[order], 0, seed=0), flipped[order])
    assert torch.equal(flip_alternately(images[7:9], 0, seed=0), flipped[7:9])
    nearly = images.clone()
    nearly[:, 0, 0, 0] ^= 1  # images that differ by one grey value only don't all go together
    assert not torch.equal(flip_alternately(nearly, 0, seed=0)[..., 1:, :], flipped[..., 1:, :])


def test_draws_fill_their_range() -> None:
    place = torch.arange(101) - 50.0
    across = place.expand(1000, 1, 101, 101)
    by = (
        across.gather(3, torch.full((1000, 1, 101, 1), 50)) - Augmentation(shift=0.2).warp(across, seeded())[..., 50:51]
    )
    middle = by[:, 0, 50, 0]
    assert middle.abs().max() <= 20.2 and middle.min() < -19 and middle.max() > 19
    assert middle.mean().abs() < 1 and abs(middle.std() - 20.2 / 3**0.5) < 1


@pytest.mark.parametrize(
    "options", [{"shift": 0.3}, {"flip": True}, {"rotation": 90}, {"zoom": 0.5}, {"elastic": 1}, {"cutout": 0.4}]
)
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
        ({"shift": 1.5}, "`data.augment.shift` 1.5: it must be at least 0 and at most 1"),
        ({"shift": -0.1}, "`data.augment.shift` -0.1"),
        ({"zoom": 1.0}, "`data.augment.zoom` 1.0: it must be at least 0 and at most 0.99"),
        ({"rotation": 181}, "`data.augment.rotation` 181: it must be at least 0 and at most 180"),
        ({"cutout": 2.0}, "`data.augment.cutout` 2.0"),
        ({"crop": 28}, "`data.augment.crop` 28: it must be less than the image's side, 28"),
        ({"crop": -1}, "`data.augment.crop` -1: it must be a number of pixels"),
        ({"crop": 1.5}, "`data.augment.crop` 1.5: it must be a number of pixels"),
        ({"crop_fill": "mirror"}, "`data.augment.crop_fill` mirror: it must be one of reflect, zero, nearest"),
        ({"policy": "auto"}, "`data.augment.policy` auto: it must be one of none, trivial, rand"),
        ({"mixup": -0.2}, "`data.augment.mixup` -0.2: expected 0, or a number from 0.01 to 100"),
        ({"cutmix": 1e-9}, "`data.augment.cutmix` 1e-09: expected 0, or"),
        ({"flip": True, "alternating_flip": True}, "`data.augment.flip` and `data.augment.alternating_flip`: set one"),
        ({"small_epochs": -1}, "`data.augment.small_epochs` -1: it must be a number of epochs"),
        ({"small_epochs": 1.5}, "`data.augment.small_epochs` 1.5: it must be a number of epochs"),
        ({"small_scale": 0}, "`data.augment.small_scale` 0: it must be a number above 0 and at most 1"),
        ({"small_scale": 1.1}, "`data.augment.small_scale` 1.1: it must be a number above 0 and at most 1"),
        ({"mixp": 1}, "unknown option `data.augment.mixp`; did you mean mixup"),
        ({"rotate": 10}, "unknown option `data.augment.rotate`; did you mean rotation?"),
        ({"xyz": 1}, "unknown option `data.augment.xyz`; there are shift, flip, rotation, zoom, elastic"),
    ],
)
def test_wrong_options(options: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Digits(augment=options)
    assert str(caught.value).startswith(says)


class OneClass(Digits):
    num_classes = 1
    class_names = ("digit",)


class TwoChannels(Digits):
    in_channels = 2


def test_changes_that_do_not_suit_the_data() -> None:
    for name in ("mixup", "cutmix"):
        with pytest.raises(UserError, match=f"`data.augment.{name}` 0.2 needs two or more classes, but the"):
            OneClass(augment={name: 0.2})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="policy` rand requires gray or RGB images, but these have 2 channels"):
        TwoChannels(augment={"policy": "rand"})
    assert OneClass(augment={"crop": 2}).augmentation.active


@pytest.mark.parametrize("options", [{name: value} for name, value in (ALL | MODERN).items()], ids=str)
def test_each_option_makes_it_active(options: Any) -> None:
    assert Digits(augment=options).augmentation.active
    assert not Digits(augment={"crop_fill": "zero", "policy": "none"}).augmentation.active


def test_the_options_are_the_fields() -> None:
    assert set(inspect.get_annotations(AugmentOptions)) == {field.name for field in dataclasses.fields(Augmentation)}
    assert Augmentation.from_options(ALL) == Augmentation(0.1, True, 20, 0.2, 0.5, 0.3)


# inside a training


def trainer_at(step: int = 0, rank: int = 0, training: bool = True, epoch: int = 0) -> Any:
    """As much of a trainer as the datamodule looks at."""
    progress = SimpleNamespace(total=SimpleNamespace(ready=step))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(training=training, fit_loop=loop, global_rank=rank, current_epoch=epoch)


def batch_of(data: Digits, **at: Any) -> Tensor:
    data.trainer = trainer_at(**at)
    images, labels = data._sets["train"][torch.arange(8)]
    return data.on_after_batch_transfer((images, labels), 0)[0]


@pytest.mark.parametrize("options", [ALL, MODERN])
def test_the_draw_follows_seed_step_and_process(options: AugmentOptions) -> None:
    torch.manual_seed(3)
    data, again = Digits(augment=options), Digits(augment=options)
    data.setup("fit")
    again.setup("fit")
    first = batch_of(data, step=5)
    torch.rand(7)  # other draws don't matter
    assert torch.equal(first, batch_of(again, step=5))
    assert not torch.equal(first, batch_of(data, step=6))
    assert not torch.equal(first, batch_of(data, step=5, rank=1))
    torch.manual_seed(4)
    other = Digits(augment=options)
    other.setup("fit")
    assert not torch.equal(first, batch_of(other, step=5))


def test_the_epoch_says_which_half_is_mirrored() -> None:
    data = Digits(augment={"alternating_flip": True})
    data.setup("fit")
    plain, first = batch_of(data, training=False), batch_of(data, epoch=4)
    assert torch.equal(batch_of(data, epoch=5, step=9), first.flip(-1)) and torch.equal(batch_of(data, epoch=6), first)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(plain, first, strict=True))
    assert not torch.equal(plain, first)


def test_cutout_comes_before_the_mixing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in an image is a hole in its part of the mixture only: the label would not be true otherwise."""
    data = Digits(augment={"cutmix": 1.0})
    data.setup("fit")
    images, _ = data._sets["train"][torch.arange(8)]
    colours = torch.arange(8.0)[:, None, None, None]
    monkeypatch.setattr(Augmentation, "cut", lambda self, pixels, generator: colours.expand_as(pixels))
    changed, mixed = data.augment(images, torch.arange(8), seeded(), epoch=0)
    shares = torch.stack([(changed == number).flatten(1).float().mean(1) for number in range(8)], 1)
    assert torch.allclose(mixed[:, :8], shares) and 0 < shares[0, 0] < 1


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
        self.labels: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.shown["train"].append(batch[0])
        return self.weight * 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.shown["val"].append(batch[0])
        self.labels.append(batch[1])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.shown["test"].append(batch[0])
        self.labels.append(batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class InOrder(Digits):
    """Always the same order, so that batches can be compared from epoch to epoch."""

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", shuffle=False)


def shown(augment: AugmentOptions | None, epochs: int = 2, ckpt_path: str | None = None) -> dict[str, list[Tensor]]:
    torch.manual_seed(0)
    model, data = Watcher(), InOrder(augment=augment, batch_size=64)
    trainer = Trainer(
        max_epochs=epochs,
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
    trainer.fit(model, data, ckpt_path=ckpt_path)
    trainer.save_checkpoint("last.ckpt")
    trainer.test(model, data, verbose=False)
    assert all(labels.dtype == torch.int64 and labels.ndim == 1 for labels in model.labels)
    return model.shown


@pytest.mark.parametrize("options", [ALL, MODERN])
def test_in_a_real_training(options: AugmentOptions) -> None:
    plain, augmented, again = shown(None), shown(options), shown(options)
    assert [len(plain[part]) for part in ("train", "val", "test")] == [4, 3, 1]  # a sanity check before the first epoch
    assert torch.equal(plain["train"][0], plain["train"][2])
    for part in ("val", "test"):
        assert all(torch.equal(one, other) for one, other in zip(plain[part], augmented[part], strict=True))
    assert all(torch.equal(one, other) for one, other in zip(augmented["train"], again["train"], strict=True))
    assert len({batch.numpy().tobytes() for batch in augmented["train"]}) == 4  # anew in each epoch
    assert not any(torch.equal(one, other) for one, other in zip(plain["train"], augmented["train"], strict=True))


@pytest.mark.parametrize("options", [ALL, MODERN])
def test_a_resumed_training_goes_on_as_it_would_have(options: AugmentOptions) -> None:
    whole = shown(options, epochs=3)["train"]
    first = shown(options, epochs=1)["train"]
    rest = shown(options, epochs=3, ckpt_path="last.ckpt")["train"]
    assert len(rest) == 4
    assert all(torch.equal(one, other) for one, other in zip(whole, first + rest, strict=True))
