"""MultiMNIST: two digits of different classes, laid over each other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lightning_cnn.datamodules.batches import Images
from lightning_cnn.datamodules.images.mnist import MNIST
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import check

SHIFT = 4  # pixels to each side
SIDE = 28 + 2 * SHIFT


class DigitPairs(Dataset[tuple[Tensor, ...]]):
    """Each digit with others of its part, of other classes, both shifted. An index is a tensor, an item a whole batch.

    Args:
        digits: The data set of single digits, 28x28 pixels.
        pairs_per_digit: How many pairs begin with each digit.
        seed: Seed of the pairs and shifts.
        preprocessing: The size of the images.
    """

    def __init__(self, digits: Dataset[Any], pairs_per_digit: int, seed: int, preprocessing: Preprocessing) -> None:
        everything = torch.arange(len(digits))  # type: ignore[arg-type]
        self.digits, self.labels = digits[everything]
        self.preprocessing = preprocessing
        generator = torch.Generator().manual_seed(seed)
        first = everything.repeat(pairs_per_digit)
        # a random digit of all that have another label: those of the same label lie together in this order
        order = self.labels.argsort(stable=True)
        counts = torch.bincount(self.labels)
        before = (counts.cumsum(0) - counts)[self.labels[first]]
        same = counts[self.labels[first]]
        draw = (torch.rand(len(first), generator=generator, dtype=torch.float64) * (len(order) - same)).long()
        second = order[torch.where(draw < before, draw, draw + same)]
        self.pairs = torch.stack([first, second], 1)
        self.shifts = torch.randint(-SHIFT, SHIFT + 1, (len(first), 2, 2), generator=generator)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:
        """A batch.

        Returns:
            The images, uint8 `(b, 1, side, side)`; 1 for each class that they show, int64 `(b, 10)`; each digit alone,
            uint8 `(b, 2, 1, side, side)`; and its class, int64 `(b, 2)`.
        """
        pairs = self.pairs[index]
        classes = self.labels[pairs]
        padded = F.pad(self.digits[pairs.flatten(), 0], (2 * SHIFT,) * 4)
        starts = SHIFT - self.shifts[index].flatten(0, 1)[..., None] + torch.arange(SIDE)  # (2 b, 2, side)
        alone = padded[torch.arange(len(padded))[:, None, None], starts[:, 0, :, None], starts[:, 1, None, :]]
        alone = self.preprocessing.fit(alone[:, None]).unflatten(0, (-1, 2))
        images = alone.sum(1, dtype=torch.int16).clamp_max(255).to(torch.uint8)
        return images, F.one_hot(classes, 10).sum(1), alone, classes

    def name(self, position: int) -> str:
        """The positions of the two digits in their part."""
        return "+".join(map(str, self.pairs[position].tolist()))


class OverlappingDigits(MNIST):
    """Two handwritten digits of different classes over each other, 36x36 pixels (MultiMNIST).

    Each digit is shifted by up to four pixels to each side, so that the 20x20 boxes of two overlap by 73 % on average
    (the paper says 80 %); their brightness is added. Pairs are made on the fly from the files of MNIST, those of
    training, validation and test from different digits, and depend on `split_seed` alone. Labels are 1 for each class
    that an image shows, int64 `(batch, 10)`; batches also have each digit alone, float `(batch, 2, 1, side, side)`, and
    its class.

    Source: Sabour, Frosst and Hinton, "Dynamic routing between capsules" (2017), section 6.1.

    Args:
        pairs_per_digit: Pairs that begin with each digit of a part (the paper's data have 1,000).
    """

    default_model = "CapsuleClassifier"
    label_kind = "any number of labels"
    labels_per_image = 2
    native_size = SIDE
    fixed = ("augment",)

    def __init__(self, root: str | None = None, pairs_per_digit: int = 1, **options: Any) -> None:
        check("data.pairs_per_digit", pairs_per_digit, least=1)
        super().__init__(root, augment=None, **options)
        self.pairs_per_digit = pairs_per_digit

    def open_parts(self, parts: Sequence[str]) -> dict[str, Dataset[Any]]:
        """The pairs of some parts, and of others that come with them.

        Args:
            parts: Of `train`, `val` and `test`.
        """
        single: dict[str, Dataset[Any]] = {}
        if "test" in parts:
            single["test"] = Images(*self.load(train=False))
        if "train" in parts or "val" in parts:
            single |= self.split(Images(*self.load(train=True)))
        seeds = {name: self.split_seed + number for number, name in enumerate(("train", "val", "test"))}
        return {
            name: DigitPairs(digits, self.pairs_per_digit, seeds[name], self.preprocessing)
            for name, digits in single.items()
        }

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scales the images and each digit alone.

        Args:
            batch: uint8 images, labels, digits alone and their classes.
            dataloader_idx: Not used.
        """
        if isinstance(batch, Tensor):  # the example input of the model summary
            return batch
        images, labels, alone, classes = batch
        scale = self.preprocessing.scale
        return scale(images.float() / 255), labels, scale(alone.float() / 255), classes

    def title(self, label: Tensor) -> str:
        """The digits, such as `3+7`.

        Args:
            label: int64 `(10,)`, 1 for each class.
        """
        return "+".join(self.class_names[number] for number in label.nonzero().flatten())
