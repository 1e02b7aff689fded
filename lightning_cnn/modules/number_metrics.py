"""How well whole numbers are read."""

import torch
from torch import Tensor

from lightning_cnn.architectures.house_number import MAX_DIGITS
from lightning_cnn.evaluation.confidence import COVERAGE_ACCURACY, coverage
from lightning_cnn.figures.collected import Columns


class NumberMetrics(Columns):
    """Accuracy of whole numbers, of lengths, places and characters; and coverage at 98 % accuracy.

    A batch of `update` is the sequences read, int64 `(n, 6)`: count of digits, then each, 10 where there is none; the
    best answer of each head by itself, int64 `(n, 6)`; probabilities of the sequences `(n,)`; and the true ones, int64
    `(n, 6)`.

    Source: Goodfellow et al., "Multi-digit Number Recognition from Street View Imagery using Deep Convolutional Neural
    Networks" (2013), section 3.
    """

    def __init__(self) -> None:
        super().__init__("numbers", "heads", "probabilities", "labels")

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, as `HouseNumberReader` describes them; of places that no number has, none."""
        numbers, heads, probabilities, labels = super().compute().values()
        there = torch.arange(MAX_DIGITS, device=labels.device) < labels[:, :1]
        found, best = (numbers == labels).float(), (heads == labels).float()
        right = found.all(1)
        values = {
            "acc": right.float().mean(),
            "length_acc": best[:, 0].mean(),
            "character_acc": found[:, 1:][there].mean(),
            "coverage98": coverage(right, probabilities, COVERAGE_ACCURACY),
        }
        for place, there_too in enumerate(there.T, start=1):
            if there_too.any():
                values[f"digit{place}_acc"] = best[there_too, place].mean()
        return values
