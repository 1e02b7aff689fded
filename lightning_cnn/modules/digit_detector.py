"""Detection of the digits of house numbers, each with its box."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from lightning_cnn.errors import check
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, Keep, Sample, Worst
from lightning_cnn.modules.base import Examples, Table, Task
from lightning_cnn.modules.detection_metrics import DetectionMetrics
from lightning_cnn.modules.detection_networks import LOSSES, OVERLAP, Detector, create_detector
from lightning_cnn.modules.image_task import Batch
from lightning_cnn.modules.pretrained import read_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# of one image: boxes (k, 4) in pixels, labels (k,) from 0 on, scores (k,), the surest first; `number`, the text that
# the confident ones make, its `probability`, and `chosen`, which of the detections these are, from left to right
Prediction = dict[str, Any]


class DigitDetector(Task):
    """Detects each digit in an image, and reads the number from left to right.

    Measured in validation and test: `map` (mean average precision over IoU of 0.5 to 0.95), `map50` (at IoU 0.5), and
    `acc`, the share of the images whose whole number is right; in the test also `map_<digit>`. The precisions are
    computed by pycocotools, over the digits that occur. There is no validation loss: choose the best epoch with
    `checkpoint.monitor val/map`. All are exact over the whole set, on any number of processes. In training `loss` is
    the sum of the detector's losses, of which each is logged.

    Args:
        detector: `grid`, a compact one-stage detector similar to YOLO; or from torchvision `faster_rcnn` with a
            MobileNetV3, `retinanet` or `fcos` with a ResNet-18, or `ssd` (SSDlite) with a MobileNetV3.
        num_classes: Number of classes; taken from the data.
        in_channels: Channels of the images; taken from the data.
        image_size: Side of the images in pixels; taken from the data.
        min_score: Minimum score of a detection to count as a digit of the number.

    Raises:
        UserError: If there is no such detector, the images or the weights don't fit it, or the data have no boxes.
    """

    better: ClassVar[Better] = {"loss_*": "min", "map": "max", "map50": "max", "acc": "max", "map_*": "max"}
    label_kind = "boxes"
    extra_needed = "detection"
    gives_logits = False
    averages_loss = False
    validated = ("map", "map50", "acc")
    shown = ("map", "acc")
    undefined = ("map*",)  # without a box
    keep: ClassVar[Mapping[str, Keep]] = {
        "detections": Sample(25),
        "wrong": Worst(25, by="probabilities", among="is_wrong"),
    }

    def __init__(
        self,
        detector: Detector = "grid",
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 128,
        min_score: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check("model.min_score", min_score, above=0, below=1)
        self.network = create_detector(detector, num_classes, in_channels, image_size)
        if self.starting_weights is not None:
            weights = read_weights(self.starting_weights)
            try:
                self.network.load_state_dict(weights.state)
            except RuntimeError as error:
                raise weights.not_of(detector, str(error).strip().splitlines()[1].strip()[:120]) from None
        self.min_score = min_score
        self.counted = ("loss", *LOSSES[detector])

    def compiled(self) -> nn.Module:
        """Part of the network that `compile` compiles: the backbone."""
        return self.network.backbone  # type: ignore[return-value]

    def forward(self, images: Tensor) -> list[Prediction]:
        """Detections in each of the images `(n, in_channels, image_size, image_size)`, in evaluation mode."""
        return [self._read(found) for found in self.network(list(images))]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the detector's losses, and each of them.

        Args:
            batch: Images `(b, channels, side, side)` and labels `(b, max_boxes, 5)`.
        """
        images, labels = batch
        losses: dict[str, Tensor] = self.network(list(images), targets(labels))
        sums = {f"loss_{name.removeprefix('loss_')}": value.detach() * len(images) for name, value in losses.items()}
        return torch.stack([*losses.values()]).sum(), sums

    def make_metrics(self, stage: str) -> DetectionMetrics:
        """Makes the metrics of `val` or `test`."""
        return DetectionMetrics(per_class=stage == "test")

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Any]:
        """Adds a batch to the metrics.

        Returns:
            The `predictions` of each image, the `labels` `(b, max_boxes, 5)`, and of each number the `probabilities`
            `(b,)` and whether it `is_wrong` `(b,)`.
        """
        images, labels = batch
        predictions: list[Prediction] = self(images)
        pairs = zip(predictions, labels, strict=True)
        right = torch.tensor([found["number"] == number_of(label) for found, label in pairs], device=labels.device)
        metrics.update(predictions, labels, right)
        probabilities = torch.tensor([found["probability"] for found in predictions], device=labels.device)
        return {"predictions": predictions, "labels": labels, "probabilities": probabilities, "is_wrong": ~right}

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Detections in each image: `boxes`, `labels`, `scores`, `number` and `probability`."""
        found: list[Prediction] = self(batch[0])
        return found

    def prediction_table(self, outputs: Sequence[list[Prediction]], examples: Examples) -> Table:
        """The numbers as text, each with its probability and the boxes of its digits, for `predict`.

        Args:
            outputs: What `predict_step` gave for each batch.
            examples: The photos.

        Returns:
            Names of the columns, and a row for each image. Boxes stand from left to right, with a blank between two, as
            `digit:left:top:right:bottom:score`, in pixels of the photo.
        """
        rows = []
        for number, found in enumerate(found for batch in outputs for found in batch):
            chosen = found["chosen"]
            boxes = examples.to_photo(found["boxes"][chosen].cpu().numpy(), number)
            written = [
                f"{digit}:{':'.join(f'{edge:.0f}' for edge in box)}:{score:.3f}"
                for digit, box, score in zip(
                    found["labels"][chosen].tolist(), boxes, found["scores"][chosen].tolist(), strict=True
                )
            ]
            rows.append([found["number"], found["probability"], " ".join(written)])
        return ["number", "probability", "boxes"], rows

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Detected boxes in a sample of the photos, and in those of the most confident errors."""
        from lightning_cnn.figures.detection import draw_detections

        for name, rows in kept.items():
            if len(rows.get(IMAGES, ())):
                yield name, draw_detections(rows[IMAGES], rows["predictions"], rows["labels"])

    def _read(self, found: dict[str, Tensor]) -> Prediction:
        """Detections with labels from 0 on, and the number that they make."""
        number = {"boxes": found["boxes"].float(), "labels": found["labels"] - 1, "scores": found["scores"].float()}
        return number | read_number(number["boxes"], number["labels"], number["scores"], self.min_score)


def targets(labels: Tensor) -> list[dict[str, Tensor]]:
    """Targets of a torchvision detector for each image: `boxes` `(m, 4)` and `labels` `(m,)`, starting at 1.

    Args:
        labels: `(n, max_boxes, 5)`: digit, left, top, right, bottom in pixels; digit -1 in rows that are not there.
    """
    there = labels[..., 0] >= 0
    return [
        {"boxes": label[rows, 1:], "labels": label[rows, 0].long() + 1}
        for label, rows in zip(labels, there, strict=True)
    ]


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
