"""The figures of reading house numbers: right and wrong ones, confused lengths and first digits, and coverage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_cnn.figures.classification import confusion_matrix, confusions
from lightning_cnn.figures.collected import IMAGES
from lightning_cnn.figures.images import answer, image_grid
from lightning_cnn.figures.style import BLUE, ORANGE, panel


def confused_numbers(numbers: Tensor, labels: Tensor, blank: int, title: str) -> Iterator[tuple[str, Figure]]:
    """The confusion matrices of the lengths and of the first digits.

    Args:
        numbers: The numbers read, int64 `(n, 1 + places)`: count of digits, then the digits.
        labels: The true ones, int64 `(n, 1 + places)`.
        blank: What stands where there is no digit.
        title: Of the figures.
    """
    places = labels.shape[1] - 1
    lengths = confusions(labels[:, 0], numbers[:, 0], 1 + places)
    digits = confusions(labels[:, 1], numbers[:, 1], 1 + blank)
    # no true number is empty: its row and column are shown where one was read as nothing
    first, last = int(not lengths[:, 0].any()), blank + int(digits[:, blank].any())
    names = [str(length) for length in range(first, 1 + places)]
    yield "lengths", confusion_matrix(lengths[first:, first:], names, f"count of digits, {title}")
    names = [*map(str, range(blank)), "none"][:last]
    yield "first_digits", confusion_matrix(digits[:last, :last], names, f"first digit, {title}")


def coverage_figure(shares: Tensor, accuracies: Tensor, wanted: float, title: str) -> Figure:
    """Accuracy of the most confident predictions, by their share of all predictions.

    Args:
        shares: Shares of the answers, `(n,)`.
        accuracies: Of these, `(n,)`.
        wanted: The accuracy that a dashed line marks.
        title: The title.
    """
    figure, axes = panel(xlabel="share of numbers, most confident first", ylabel="accuracy", title=title, xlim=(0, 1))
    axes.plot(shares.cpu().numpy(), accuracies.cpu().numpy(), color=BLUE)
    axes.axhline(wanted, color=ORANGE, linestyle="--")
    reached = float(torch.where(accuracies >= wanted, shares, 0).max())
    axes.text(0.0, wanted, f" {wanted:.0%} right: coverage {reached:.1%}", va="bottom", color=ORANGE)
    return figure


def number_grid(rows: Mapping[str, Any], read: Sequence[str], true: Sequence[str]) -> Figure:
    """Images with the numbers read, and the true ones where these differ.

    Args:
        rows: `images`, float, 0 to 1, and `probabilities`, of each number.
        read: The numbers read.
        true: The true ones.
    """
    shown = (f"{number} ({share:.0%})" for number, share in zip(read, rows["probabilities"].tolist(), strict=True))
    return image_grid(rows[IMAGES], [*map(answer, read, true, shown)])
