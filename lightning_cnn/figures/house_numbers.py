"""The pictures of reading house numbers: right and wrong ones, confused lengths and first digits, and coverage."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import CatMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_cnn.architectures.house_number import BLANK, MAX_DIGITS, number_text
from lightning_cnn.evaluation.coverage import COVERED
from lightning_cnn.figures import plots
from lightning_cnn.figures.classification import highest

SHOWN = 25  # right and wrong ones
WRONG = 25


class NumberFigures:
    """Collects the answers of steps that return `numbers` `(batch, 6)`, `probabilities` and `labels`, and draws them.

    The wrong numbers that are drawn are the surest of those that this process has seen.
    """

    needs = frozenset({"numbers", "probabilities", "labels"})
    drawn = ("_gathered", "_wrong", "_sample")  # what the figures are drawn from, plain data once it is gathered

    def __init__(self) -> None:
        self._lengths = MulticlassConfusionMatrix(1 + MAX_DIGITS)
        self._digits = MulticlassConfusionMatrix(BLANK + 1)
        self._right, self._sure = CatMetric(nan_strategy="disable"), CatMetric(nan_strategy="disable")
        self._wrong: list[Tensor] = []
        self._sample: list[Tensor] = []
        self._draws = torch.Generator().manual_seed(0)  # the same images each time, so that runs can be compared

    def add(self, outputs: dict[str, Tensor], images: Tensor) -> None:
        """Adds a batch.

        Args:
            outputs: What the step returned.
            images: The images as the network saw them, `(batch, channels, height, width)`.
        """
        numbers, sure, labels = outputs["numbers"], outputs["probabilities"], outputs["labels"]
        for metric in (self._lengths, self._digits, self._right, self._sure):
            metric.to(labels.device)
        self._lengths.update(numbers[:, 0], labels[:, 0])
        self._digits.update(numbers[:, 1], labels[:, 1])
        wrong = (numbers != labels).any(1)
        self._right.update((~wrong).float())
        self._sure.update(sure)
        found = [images, numbers, labels, sure]
        self._wrong = highest(sure[wrong], [part[wrong] for part in found], self._wrong, WRONG)
        lots = torch.rand(len(sure), generator=self._draws).to(sure.device)
        self._sample = highest(lots, found, self._sample, SHOWN)

    def gather(self) -> None:
        """Joins the counts of all processes; each of them must call it."""
        self._gathered = [metric.compute() for metric in (self._lengths, self._digits, self._right, self._sure)]

    def draw(self, data: Any, title: str) -> Iterator[tuple[str, Figure]]:
        """Names and figures.

        Args:
            data: The data module, for the scaling of the images.
            title: Of the confusion matrices and of the curve.
        """
        lengths, digits, right, sure = self._gathered
        title = f"{title}: {int(lengths.sum()):,} numbers"
        # no true number is empty: its row and column are shown where one was read as nothing
        first, last = int(not lengths[:, 0].any()), BLANK + int(digits[:, BLANK].any())
        names = [str(length) for length in range(first, 1 + MAX_DIGITS)]
        yield "lengths", plots.confusion_matrix(lengths[first:, first:], names, f"count of digits, {title}")
        names = [*map(str, range(BLANK)), "none"][:last]
        yield "first_digits", plots.confusion_matrix(digits[:last, :last], names, f"first digit, {title}")
        yield "coverage", plots.coverage_plot(right.bool(), sure, COVERED, title)
        for name, columns in (("numbers", self._sample), ("wrong", self._wrong)):
            if len(columns[0]):
                yield name, self._grid(columns, data)

    def _grid(self, columns: list[Tensor], data: Any) -> Figure:
        _, images, numbers, labels, sure = columns
        titles = []
        for number, label, share in zip(numbers, labels, sure.tolist(), strict=True):
            read, true = number_text(number), number_text(label)
            titles.append(f"{read} ({share:.0%})" if read == true else f"{read} ({share:.0%}),\nis {true}")
        return plots.image_grid(data.preprocessing.unscale(images.float()), titles)
