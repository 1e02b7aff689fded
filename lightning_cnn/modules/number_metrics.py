"""How well whole numbers are read."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_cnn.architectures.house_number import MAX_DIGITS
from lightning_cnn.evaluation.confidence import COVERED, coverage


class NumberMetrics(Metric):
    """Accuracy of whole numbers, of lengths, places and characters; and coverage at 98 % accuracy.

    Source: Goodfellow et al., "Multi-digit Number Recognition from Street View Imagery using Deep Convolutional Neural
    Networks" (2013), section 3.
    """

    full_state_update = False
    higher_is_better = True

    right: list[Tensor]
    sure: list[Tensor]
    sums: Tensor
    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", [], dist_reduce_fx="cat")
        self.add_state("sure", [], dist_reduce_fx="cat")
        # right lengths, right characters, characters
        self.add_state("sums", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        # right digits, digits
        self.add_state("places", torch.zeros(2, MAX_DIGITS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, numbers: Tensor, heads: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            numbers: The sequences read, int64 `(n, 6)`: count of digits, then each, 10 where there is none.
            heads: The best answer of each head by itself, int64 `(n, 6)`.
            probabilities: Of the sequences, `(n,)`.
            labels: The true ones, int64 `(n, 6)`.
        """
        there = torch.arange(MAX_DIGITS, device=labels.device) < labels[:, :1]
        self.right.append((numbers == labels).all(1))
        self.sure.append(probabilities)
        found = (numbers[:, 1:] == labels[:, 1:]) & there
        self.sums += torch.stack([(heads[:, 0] == labels[:, 0]).sum(), found.sum(), there.sum()])
        self.places += torch.stack([((heads[:, 1:] == labels[:, 1:]) & there).sum(0), there.sum(0)])

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, as `HouseNumberReader` describes them; of places that no number has, none."""
        right, sure = dim_zero_cat(self.right), dim_zero_cat(self.sure)
        lengths, characters, all_characters = self.sums
        values = {
            "acc": right.float().mean(),
            "length_acc": lengths / len(right),
            "character_acc": characters / all_characters,
            "coverage98": coverage(right, sure, COVERED),
        }
        for place, (good, count) in enumerate(self.places.T, start=1):
            if count:
                values[f"digit{place}_acc"] = good / count
        return values
