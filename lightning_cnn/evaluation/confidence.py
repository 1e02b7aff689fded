"""Calibration of probabilities, and coverage of the most confident predictions."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

BINS = 15
EDGES = torch.arange(1, BINS) / BINS  # between the bins, float32
COVERAGE_ACCURACY = 0.98  # about human accuracy on house numbers (Goodfellow et al. 2013, section 3)
UNIT = 2**30  # confidences are summed in whole parts of this size, so that a sum does not depend on its order

Floats = NDArray[np.float64]


def calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """Expected calibration error: |accuracy - mean confidence| of each bin, weighted by its size.

    There are 15 bins of equal width. A confidence on the edge of two bins belongs to the lower one, 0 to the first and
    1 to the last.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 2.

    Args:
        confidence: Probabilities of the predictions, `(n,)`, rounded to float32.
        correct: Whether each prediction is correct, bool `(n,)`.

    Returns:
        float32, no dimensions; NaN without predictions, or if a confidence is NaN.

    Raises:
        ValueError: If a confidence is below 0 or above 1, as logits may be.
    """
    return error_of(bin_sums(confidence, correct))


def bin_sums(confidence: Tensor, correct: Tensor) -> Tensor:
    """Sufficient statistics of the calibration error; add those of several batches.

    Args:
        confidence: Probabilities of the predictions, `(n,)`.
        correct: Whether each prediction is correct, bool `(n,)`.

    Returns:
        Number of predictions, sum of their confidences in units of 1 / `UNIT`, and number of correct ones in each bin,
        int64 `(BINS + 1, 3)`; the last row counts confidences that are NaN.

    Raises:
        ValueError: If a confidence is below 0 or above 1.
    """
    confidence, unknown = confidence.detach().float(), confidence.isnan()
    if ((confidence < 0) | (confidence > 1)).any():
        raise ValueError("the calibration error needs probabilities: apply softmax or sigmoid to the logits")
    bins = torch.bucketize(confidence, EDGES.to(confidence.device)).masked_fill(unknown, BINS)
    rows = torch.stack([torch.ones_like(bins), (confidence.nan_to_num() * UNIT).long(), correct.long()], 1)
    return torch.zeros(BINS + 1, 3, dtype=torch.int64, device=confidence.device).index_add_(0, bins, rows)


def error_of(sums: Tensor) -> Tensor:
    """The calibration error of sums from `bin_sums`."""
    count, confidence, correct = sums.cpu().double().unbind(1)
    error = (confidence / UNIT - correct).abs().sum() / count.sum()
    return torch.where(count[BINS] > 0, torch.nan, error).float().to(sums.device)


class CalibrationError(Metric):
    """`calibration_error` over all batches and processes together."""

    full_state_update = False
    higher_is_better = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(BINS + 1, 3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, confidence: Tensor, correct: Tensor) -> None:
        """Adds a batch: probabilities of the predictions `(b,)`, and whether each is correct, bool `(b,)`."""
        self.sums = self.sums + bin_sums(confidence, correct)

    def compute(self) -> Tensor:
        """The error, no dimensions."""
        return error_of(self.sums)


def calibration_groups(
    probabilities: Floats, happened: NDArray[np.bool_], groups: int = 10
) -> tuple[Floats, Floats, Floats]:
    """Predicted probabilities and observed frequencies, in groups of equal size.

    Args:
        probabilities: `(n,)`.
        happened: Whether the predicted event happened, `(n,)`.
        groups: Number of groups; equal probabilities share a group, so there may be fewer.

    Returns:
        Mean probability, observed frequency and size of each group, each `(groups,)`.
    """
    edges = np.quantile(probabilities, np.arange(1, groups) / groups) if len(probabilities) else np.empty(0)
    numbers = np.searchsorted(edges, probabilities)
    sums = [np.bincount(numbers, weights, groups) for weights in (probabilities, happened, np.ones(len(numbers)))]
    said, seen, count = np.stack(sums)[:, sums[2] > 0]
    return said / count, seen / count, count


def coverage_curve(correct: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Accuracy of the most confident predictions, by their share of all predictions.

    Args:
        correct: Whether each prediction is correct, bool `(n,)`.
        confidence: Confidence of each, `(n,)`.

    Returns:
        Increasing shares of the predictions up to 1, and their accuracies. Predictions of equal confidence enter
        together.
    """
    values, order = confidence.sort(descending=True, stable=True)
    last = torch.cat([values[1:] != values[:-1], torch.ones(1, dtype=torch.bool, device=confidence.device)])
    taken = torch.arange(1, len(correct) + 1, device=confidence.device)
    return (taken / len(correct))[last], (correct[order].cumsum(0) / taken)[last]


def coverage(correct: Tensor, confidence: Tensor, accuracy: float) -> Tensor:
    """Largest share of the most confident predictions that reaches an accuracy; 0 if none does.

    Args:
        correct: Whether each prediction is correct, bool `(n,)`.
        confidence: Confidence of each, `(n,)`.
        accuracy: The accuracy to reach.
    """
    shares, accuracies = coverage_curve(correct, confidence)
    return torch.where(accuracies >= accuracy, shares, 0).max()
