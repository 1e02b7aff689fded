"""Mixup, cutmix and the policies: what becomes of pixels and labels, and where their draws come from."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from lightning_cnn.datamodules.images.augmentation import Augmentation
from lightning_cnn.datamodules.images.torchvision_transforms import apply_policy, mix

COUNT = 8
CLASSES = torch.arange(COUNT)  # each image has a class of its own: its label says how much of it is where
POLICIES: tuple[Literal["trivial", "rand"], ...] = ("trivial", "rand")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(channels: int = 3, height: int = 12, width: int = 10, count: int = COUNT) -> Tensor:
    return torch.rand(count, channels, height, width, generator=seeded())


def neighbours(shares: Tensor) -> Tensor:
    """The labels of a batch of which each image has these shares of itself, the rest of the image before it."""
    return torch.diag(shares) + torch.diag(1 - shares).roll(-1, dims=1)


# mixing


@pytest.mark.parametrize("channels", [1, 3])
def test_mixup_blends_pixels_as_it_blends_labels(channels: int) -> None:
    images = noise(channels)
    shares = set()
    for seed in range(20):
        mixed, labels = mix(images, CLASSES, 1.0, 0.0, COUNT, seeded(seed))
        assert torch.allclose(labels.sum(1), torch.ones(COUNT))
        assert torch.allclose(mixed.flatten(1), labels @ images.flatten(1), atol=1e-6)
        assert torch.allclose(labels, neighbours(labels.diag()))
        shares.add(round(float(labels[0, 0]), 3))
    assert len(shares) == 20 and min(shares) < 0.3 and max(shares) > 0.7


@pytest.mark.parametrize("channels", [1, 3])
def test_cutmix_labels_are_areas(channels: int) -> None:
    images = noise(channels)
    shares = set()
    for seed in range(30):
        mixed, labels = mix(images, CLASSES, 0.0, 1.0, COUNT, seeded(seed))
        own, other = (mixed == images).all(1), (mixed == images.roll(1, 0)).all(1)
        assert torch.equal(own, ~other)  # every pixel is of one of the two, in all channels
        assert torch.allclose(labels.sum(1), torch.ones(COUNT))
        assert torch.allclose(labels, neighbours(own.float().mean((1, 2))))
        rows, columns = other[0].any(1), other[0].any(0)
        assert torch.equal(other[0], rows[:, None] & columns)  # a rectangle, at one place in the whole batch
        assert torch.equal(other, other[:1].expand_as(other))
        shares.add(round(float(labels[0, 0]), 3))
    assert len(shares) > 15 and min(shares) < 0.5 and max(shares) > 0.8


def test_alpha_says_how_much_is_mixed() -> None:
    def extreme(mixup: float) -> float:
        """How many batches stay nearly as they were."""
        shares = [mix(noise(1, 2, 2), CLASSES, mixup, 0.0, COUNT, seeded(seed))[1][0, 0] for seed in range(200)]
        return sum(not 0.1 < share < 0.9 for share in shares) / len(shares)

    assert extreme(0.1) > 0.6 and extreme(1) == pytest.approx(0.2, abs=0.1) and extreme(10) == 0


def test_each_batch_takes_one_of_the_two() -> None:
    images = noise()
    blended = 0
    for seed in range(200):
        mixed, labels = mix(images, CLASSES, 1.0, 1.0, COUNT, seeded(seed))
        kinds = [(mixed == images).any().item(), torch.allclose(mixed.flatten(1), labels @ images.flatten(1))]
        blended += kinds == [False, True]
        assert kinds[0] != kinds[1] or labels[0, 0] == 1
    assert 70 < blended < 130


def test_images_of_one_class_stay_of_this_class() -> None:
    for mixup, cutmix in ((1.0, 0.0), (0.0, 1.0)):
        _, labels = mix(noise(), torch.full((COUNT,), 3), mixup, cutmix, 5, seeded())
        assert torch.allclose(labels, torch.eye(5)[3].expand(COUNT, 5))


def test_one_image_is_mixed_with_itself() -> None:
    image = noise(count=1)
    mixed, labels = mix(image, torch.tensor([2]), 0.2, 1.0, 4, seeded())
    assert torch.allclose(mixed, image) and torch.allclose(labels, torch.eye(4)[2:3])


def test_nothing_is_mixed_unless_asked_for() -> None:
    images = noise()
    assert Augmentation(cutout=0.5).mix(images, CLASSES, COUNT, seeded()) == (images, CLASSES)
    mixed, labels = Augmentation(cutmix=1.0).mix(images, CLASSES, COUNT, seeded())
    assert not torch.equal(mixed, images) and labels.shape == (COUNT, COUNT)


# policies


def photos(count: int, channels: int = 3, side: int = 16) -> Tensor:
    """Smooth uint8 images: in noise some changes could not be told from others."""
    coarse = torch.rand(count, channels, 4, 4, generator=seeded(1))
    smooth = torch.nn.functional.interpolate(coarse, side, mode="bilinear")
    return (smooth * 200 + 20).byte()


@pytest.mark.parametrize("policy", POLICIES)
def test_each_image_has_a_draw_of_its_own(policy: str) -> None:
    image = photos(1)
    changed = apply_policy(image.expand(40, -1, -1, -1), policy, seeded())
    assert (changed.shape, changed.dtype) == ((40, 3, 16, 16), torch.uint8)
    kinds = {one.numpy().tobytes() for one in changed}
    assert len(kinds) > 20
    assert image.numpy().tobytes() in kinds  # one of the changes is none
    colours = {one.unique().numpy().tobytes() for one in changed}
    assert len(colours) > 10
    black = (changed == 0).all(1).flatten(1).any(1)  # a shift or a turn brings black in from outside
    assert 3 < black.sum() < 37


def test_a_policy_changes_images_one_by_one() -> None:
    """An image comes out the same whatever images stand behind it in the batch."""
    images = photos(12)
    changed = apply_policy(images, "trivial", seeded())
    others = torch.cat([images[:6], photos(12).flip(0)[:6]])
    assert torch.equal(apply_policy(others, "trivial", seeded())[:6], changed[:6])
    assert not torch.equal(apply_policy(images[:6], "rand", seeded()), changed[:6])


@pytest.mark.parametrize("policy", POLICIES)
def test_grey_images_are_changed_like_grey_photos(policy: str) -> None:
    grey = photos(60, channels=1)
    found = apply_policy(grey, policy, seeded())
    colour = apply_policy(grey.expand(-1, 3, -1, -1), policy, seeded())
    assert found.shape == grey.shape
    # the weights of the colours are rounded, and strong contrast makes more of it
    assert (found.int() - colour.int()).abs().max() <= 3
    assert (found != grey).flatten(1).any(1).float().mean() > 0.5


@pytest.mark.parametrize("policy", POLICIES)
def test_in_an_augmentation_the_policy_comes_before_the_rest(policy: Literal["trivial", "rand"]) -> None:
    images = photos(6)
    changed = Augmentation(policy=policy).change(images, seeded(5), epoch=0, seed=0)
    assert torch.equal(changed, apply_policy(images, policy, seeded(5)).float() / 255)


# draws


@pytest.mark.parametrize("kind", ["mixup", "cutmix", *POLICIES])
def test_the_draws_are_those_of_the_generator(kind: str) -> None:
    def draw(seed: int) -> Tensor:
        if kind in POLICIES:
            return apply_policy(photos(6), kind, seeded(seed))
        return mix(noise(), CLASSES, float(kind == "mixup"), float(kind == "cutmix"), COUNT, seeded(seed))[0]

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draw(7)
    assert torch.equal(torch.get_rng_state(), state)  # the network's dropout goes on as if nothing had been drawn
    torch.rand(3)
    assert torch.equal(first, draw(7))
    assert not torch.equal(first, draw(8))
