"""torchvision's mixing and its policies on whole batches, driven by a generator of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor
from torchvision.transforms import v2

POLICIES = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}


@contextmanager
def seeded_by(generator: torch.Generator, purpose: int) -> Iterator[None]:
    """Lets torchvision, which knows the global generator of the CPU only, draw what follows from our generator.

    The draws depend on the seed of the generator alone, so that no GPU has to be waited for. The global generator
    goes on as if it had not been used.

    Args:
        generator: On any device.
        purpose: Different purposes draw differently from the same generator.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPUs, too, and with them the dropout of the network
        torch.default_generator.manual_seed((generator.initial_seed() * 31 + purpose) % 2**63)
        yield


def apply_policy(images: Tensor, policy: str, generator: torch.Generator) -> Tensor:
    """Changes each image as TrivialAugment or RandAugment draws it.

    torchvision's transforms draw once for a whole batch, so each image goes through them by itself.

    Args:
        images: uint8, `(n, 1 or 3, height, width)`.
        policy: `trivial` (Mueller and Hutter 2021, the wide space) or `rand` (Cubuk et al. 2020; 2 changes each, of
            strength 9 of 30).
        generator: The source of all draws.

    Returns:
        uint8 images of the same shape.
    """
    transform = POLICIES[policy]()
    with seeded_by(generator, purpose=1):
        return torch.stack([transform(image) for image in images])


def mix(
    images: Tensor, labels: Tensor, mixup: float, cutmix: float, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mixes each image with its neighbor in the batch, by mixup or by cutmix; where both are on, by one at random.

    The share is sampled once for the batch, as in both papers.

    Args:
        images: Float, `(n, channels, height, width)`, in random order.
        labels: int64, `(n,)`.
        mixup: Alpha of mixup (Zhang et al. 2018), 0 for none.
        cutmix: Alpha of cutmix (Yun et al. 2019), 0 for none.
        num_classes: Number of classes.
        generator: The source of all draws.

    Returns:
        Images of the same shape, and probabilities `(n, num_classes)`.
    """
    with seeded_by(generator, purpose=2):
        mixed: tuple[Tensor, Tensor] = _mixer(float(mixup), float(cutmix), num_classes)(images, labels)
    return mixed


@lru_cache
def _mixer(mixup: float, cutmix: float, num_classes: int) -> v2.Transform:
    chosen: list[v2.Transform] = []
    if mixup:
        chosen.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
    if cutmix:
        chosen.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
    return chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)
