"""The pictures of detection: digits found in photos, beside the true ones."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_cnn.figures.box_plots import draw_detections

SHOWN = 25  # any images, and wrong ones

# what orders the images, and an image with what was found in it and its label
Entry = tuple[float, Tensor, dict[str, Any], Tensor]


class DetectionFigures:
    """Collects the answers of steps that return `predictions`, `labels` `(batch, max_boxes, 5)` and `right`.

    The wrong numbers that are drawn are the surest of those that this process has seen.
    """

    needs = frozenset({"predictions", "labels", "right"})
    drawn = ("_sample", "_wrong")  # what the figures are drawn from, plain data once it is gathered

    def __init__(self) -> None:
        self._sample: list[Entry] = []
        self._wrong: list[Entry] = []
        self._draws = torch.Generator().manual_seed(0)  # the same images each time, so that runs can be compared

    def add(self, outputs: dict[str, Any], images: Tensor) -> None:
        """Adds a batch.

        Args:
            outputs: What the step returned.
            images: The images as the network saw them, `(batch, channels, height, width)`.
        """
        right = outputs["right"].tolist()
        lots = torch.rand(len(images), generator=self._draws).tolist()
        rows = list(zip(lots, images, outputs["predictions"], outputs["labels"], strict=True))
        wrong = [(row[2]["probability"], *row[1:]) for row, is_right in zip(rows, right, strict=True) if not is_right]
        self._sample, self._wrong = _highest(self._sample + rows), _highest(self._wrong + wrong)

    def gather(self) -> None:
        """Nothing is summed over processes."""

    def draw(self, data: Any, title: str) -> Iterator[tuple[str, Figure]]:
        """Names and figures.

        Args:
            data: The data module, for the scaling of the images.
            title: Not used.
        """
        for name, rows in (("detections", self._sample), ("wrong", self._wrong)):
            if rows:
                _, images, predictions, labels = zip(*rows, strict=True)
                pixels = data.preprocessing.unscale(torch.stack(images).float())
                yield name, draw_detections(pixels, predictions, torch.stack(labels))


def _highest(rows: list[Entry]) -> list[Entry]:
    """The first by their order; the images are taken out of their batches, which would otherwise stay in memory."""
    kept = sorted(rows, key=lambda row: row[0], reverse=True)[:SHOWN]
    return [(order, image.clone(), found, label) for order, image, found, label in kept]
