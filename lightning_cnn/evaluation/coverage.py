"""How many answers can be given, the surest first, so that so many of them are right."""

import torch
from torch import Tensor

COVERED = 0.98  # about the accuracy of people on house numbers (Goodfellow et al. 2013, section 3)


def coverage_curve(right: Tensor, sure: Tensor) -> tuple[Tensor, Tensor]:
    """How accurate the answers are, if only the surest are taken.

    Args:
        right: Which answers are right, bool `(n,)`.
        sure: How probable each is, `(n,)`.

    Returns:
        Shares of the answers, rising to 1; and the accuracy of so many. Answers that are equally sure come together.
    """
    values, order = sure.sort(descending=True, stable=True)
    last = torch.cat([values[1:] != values[:-1], torch.ones(1, dtype=torch.bool, device=sure.device)])
    taken = torch.arange(1, len(right) + 1, device=sure.device)
    return (taken / len(right))[last], (right[order].cumsum(0) / taken)[last]


def coverage(right: Tensor, sure: Tensor, accuracy: float) -> Tensor:
    """The largest share of the answers, the surest first, that is right in so many cases; 0 where there is none.

    Args:
        right: Which answers are right, bool `(n,)`.
        sure: How probable each is, `(n,)`.
        accuracy: Of the share.
    """
    shares, accuracies = coverage_curve(right, sure)
    return torch.where(accuracies >= accuracy, shares, 0).max()
