"""Detection of the digits of house numbers, each with its box, and the reading of the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.ops import nms

from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import Keep, Sample, Table, Worst
from lightning_cnn.modules.base import Examples
from lightning_cnn.modules.detection_metrics import NumberDetectionMetrics
from lightning_cnn.modules.detection_networks import OVERLAP, TALL
from lightning_cnn.modules.detector import Detector, Prediction, chosen_in
from lightning_cnn.modules.image_task import Batch


class DigitDetector(Detector):
    """Detects each digit in an image, and reads the number from left to right.

    Measured like any `Detector`, and also by `acc`, the share of the images whose whole number is right. A prediction
    has the `number`, the text that the confident digits make, its `probability`, and in `chosen` the positions of these
    digits, from left to right.

    Args:
        min_score: Minimum score of a detection to count as a digit of the number.
    """

    better: ClassVar[Better] = {"acc": "max"}
    validated = ("map", "map50", "acc")
    shown = ("map", "acc")
    shapes = TALL
    reads = True
    keep: ClassVar[Mapping[str, Keep]] = {
        "detections": Sample(25),
        "wrong": Worst(25, by="probabilities", among="is_wrong"),
    }

    def __init__(self, *detector: Any, min_score: float = 0.5, **options: Any) -> None:
        super().__init__(*detector, min_score=min_score, **options)

    def setup(self, stage: str) -> None:
        """Checks that the data are house numbers.

        Raises:
            UserError: If they are others: only of these the digits are listed in the order of the number.
        """
        super().setup(stage)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage != "predict" and getattr(data, "default_model", "DigitDetector") != "DigitDetector":
            raise UserError(f"DigitDetector reads house numbers: for the boxes of {type(data).__name__} use Detector")

    def read(self, found: dict[str, Tensor]) -> Prediction:
        """The detections in an image with labels from 0 on, and the number that they make."""
        read = super().read(found)
        return read | read_number(read["boxes"], read["labels"], read["scores"], self.min_score)

    def make_metrics(self, stage: str) -> NumberDetectionMetrics:
        """Makes the metrics of `val` or `test`."""
        return NumberDetectionMetrics(per_class=stage == "test")

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Any]:
        """Adds a batch to the metrics.

        Returns:
            The `predictions` of each image, the `labels` `(b, max_boxes, 5)`, and of each number the `probabilities`
            `(b,)` and whether it `is_wrong` `(b,)`.
        """
        images, labels = batch
        predictions: list[Prediction] = self(images)
        pairs = zip(predictions, map(number_of, labels), strict=True)
        right = torch.tensor([found["number"] == number for found, number in pairs], device=labels.device)
        metrics.update(predictions, labels, right)
        probabilities = torch.tensor([found["probability"] for found in predictions], device=labels.device)
        return {"predictions": predictions, "labels": labels, "probabilities": probabilities, "is_wrong": ~right}

    def prediction_table(self, outputs: Sequence[list[Prediction]], examples: Examples) -> Table:
        """The numbers as text, each with its probability and the boxes of its digits, for `predict`.

        Args:
            outputs: What `predict_step` gave for each batch.
            examples: The photos.

        Returns:
            Names of the columns, and a row for each image. Boxes stand from left to right, with a blank between two, as
            `digit:left:top:right:bottom:score`, in pixels of the photo.
        """
        whole = [found for batch in outputs for found in batch]
        tables = zip(whole, chosen_in(outputs), self.photo_boxes(outputs, examples), strict=True)
        rows = [
            [found["number"], found["probability"], self.written(chosen, boxes, examples)]
            for found, chosen, boxes in tables
        ]
        return ["number", "probability", "boxes"], rows

    def titles(self, predictions: Sequence[Prediction], labels: Tensor) -> list[str]:
        """What stands above the images in figures: the number that was read, and the true one."""
        from lightning_cnn.figures.images import answer

        read, right = [found["number"] or "nothing" for found in predictions], [number_of(label) for label in labels]
        shown = (f"{text} ({found['probability']:.0%})" for text, found in zip(read, predictions, strict=True))
        return [*map(answer, read, [text or "nothing" for text in right], shown)]


def number_of(label: Tensor) -> str:
    """The true number of an image, its digits in the order of their rows.

    Args:
        label: `(max_boxes, 5)`.
    """
    return "".join(str(int(digit)) for digit in label[:, 0].tolist() if digit >= 0)


def read_number(boxes: Tensor, labels: Tensor, scores: Tensor, min_score: float) -> dict[str, Any]:
    """Reads the confident digits from left to right; of two that overlap, the more confident.

    Args:
        boxes: `(k, 4)` in pixels.
        labels: Digits, `(k,)`.
        scores: `(k,)`.
        min_score: Score from which a detection is a digit.

    Returns:
        `number`, the text, which may be empty; `probability`, the product of the scores, 0 without a digit; and
        `chosen`, the positions of the digits, int64.
    """
    kept = torch.nonzero(scores >= min_score).flatten()
    kept = kept[nms(boxes[kept], scores[kept], OVERLAP)]
    kept = kept[(boxes[kept, 0] + boxes[kept, 2]).argsort()]
    text = "".join(map(str, labels[kept].tolist()))
    return {"number": text, "probability": float(scores[kept].prod()) if text else 0.0, "chosen": kept}
