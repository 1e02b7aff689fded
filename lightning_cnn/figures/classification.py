"""The pictures of a classification: confusion matrix, the worst images, and some right and wrong ones."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from lightning_cnn.figures import plots

WORST = 25
SAMPLE = 32  # predictions shown, right and wrong ones


class ClassFigures:
    """Collects the answers of steps that return `logits` `(batch, classes)` and `labels` `(batch,)`, and draws them.

    The worst images are those with the largest loss that this process has seen.
    """

    needs = frozenset({"logits", "labels"})
    drawn = ("_counts", "_worst", "_sample")  # what the figures are drawn from, plain data once it is gathered

    def __init__(self) -> None:
        self._confusion: MulticlassConfusionMatrix | None = None
        self._counts = torch.empty(0)
        self._worst: list[Tensor] = []
        self._sample: list[Tensor] = []
        self._draws = torch.Generator().manual_seed(0)  # the same images each time, so that runs can be compared

    def add(self, outputs: dict[str, Tensor], images: Tensor) -> None:
        """Adds a batch.

        Args:
            outputs: What the step returned.
            images: The images as the network saw them, `(batch, channels, height, width)`.
        """
        logits, labels = outputs["logits"], outputs["labels"]
        if self._confusion is None:
            self._confusion = MulticlassConfusionMatrix(logits.shape[1]).to(logits.device)
        self._confusion.update(logits, labels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        found = [images, labels, logits.argmax(1), losses]
        self._worst = highest(losses, found, self._worst, WORST)
        lots = torch.rand(len(losses), generator=self._draws).to(losses.device)
        self._sample = highest(lots, found, self._sample, SAMPLE)

    def gather(self) -> None:
        """Sums the confusion matrix over all processes; each of them must call it."""
        assert self._confusion is not None
        self._counts = self._confusion.compute()

    def draw(self, data: Any, title: str) -> Iterator[tuple[str, Figure]]:
        """Names and figures.

        Args:
            data: The data module, for the names of the classes and the scaling of the images.
            title: Of the confusion matrix.
        """
        counts = self._counts
        names = getattr(data, "class_names", None) or [str(number) for number in range(len(counts))]
        yield "confusion", plots.confusion_matrix(counts, names, f"{title}: {int(counts.sum()):,} images")
        preprocessing = getattr(data, "preprocessing", None)
        if preprocessing is None:
            return
        _, images, labels, predictions, losses = self._worst
        titles = [
            f"{names[true]}, taken for\n{names[guess]} (loss {loss:.1f})"
            for loss, true, guess in zip(losses.tolist(), labels.tolist(), predictions.tolist(), strict=True)
        ]
        yield "worst", plots.image_grid(preprocessing.unscale(images.float()), titles)
        _, images, labels, predictions, _ = self._sample
        titles = [
            f"\u2713 {names[true]}" if true == guess else f"\u2717 {names[guess]},\nis {names[true]}"
            for true, guess in zip(labels.tolist(), predictions.tolist(), strict=True)
        ]
        yield "predictions", plots.image_grid(preprocessing.unscale(images.float()), titles, columns=8)


def highest(scores: Tensor, found: list[Tensor], kept: list[Tensor], count: int) -> list[Tensor]:
    """The rows with the highest scores, among those that were kept before and those found now; the scores first.

    Args:
        scores: `(n,)`.
        found: What belongs to the scores, each `(n, ...)`.
        kept: What an earlier call returned; empty at first.
        count: How many rows at most.
    """
    rows = [scores, *found]
    if kept:
        rows = [torch.cat(pair) for pair in zip(kept, rows, strict=True)]
    top = rows[0].topk(min(count, len(rows[0]))).indices
    return [part[top] for part in rows]
