"""Detection of objects, each with its class and its box."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from lightning_cnn.errors import check
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, Keep, Sample, Table, Worst
from lightning_cnn.modules.base import Examples
from lightning_cnn.modules.detection_metrics import DetectionMetrics
from lightning_cnn.modules.detection_networks import (
    ANY,
    DETECTIONS,
    LOSSES,
    OVERLAP,
    SCORE,
    DetectorName,
    create_detector,
)
from lightning_cnn.modules.image_task import Batch
from lightning_cnn.modules.scored_boxes import ScoredBoxes
from lightning_cnn.modules.transfer import TransferTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# of one image: boxes (k, 4) in pixels, labels (k,) from 0 on, scores (k,), the surest first; and `chosen`, the
# positions of the confident ones, int64
Prediction = dict[str, Any]
CURVES = "precision_curves"  # what a checkpoint holds of the last validation


class Detector(TransferTask):
    """Detects the objects in an image: the class and the box of each.

    Measured in validation and test: `map` (mean average precision over IoU of 0.5 to 0.95) and `map50` (at IoU 0.5); in
    the test also `map_<class>`. They are computed by pycocotools over the classes that occur, exactly over the whole
    set, on any number of processes. Crowd regions count in no loss of the grid detector, and are background to
    torchvision's; a detection within one is neither right nor wrong. There is no validation loss: the best epoch is the
    one with the highest `val/map`. In training `loss` is the sum of the detector's losses, each of which is logged.

    Args:
        detector: `grid`, a compact one-stage detector similar to YOLO; or torchvision's `faster_rcnn`, `retinanet`,
            `fcos` or `ssd`.
        backbone: Network of timm whose features the detector uses, such as `resnet18`; default is the detector's own:
            a small network for `grid`, MobileNetV3 for `faster_rcnn` and `ssd`, and ResNet-18 for `retinanet` and
            `fcos`. With a backbone, `weights` may be a file of the weights of that network.
        cell: Side in pixels of the cells of `grid`, 4 or 8: 4 for objects of less than about 16 pixels.
        num_classes: Number of classes; taken from the data.
        in_channels: Channels of the images; taken from the data.
        image_size: Side of the images in pixels; taken from the data.
        min_score: Minimum score of the detections that are drawn and returned by `predict`.

    Raises:
        UserError: If there is no such detector or backbone, the images or the weights don't fit it, or the data have no
            boxes.
    """

    better: ClassVar[Better] = {"loss_*": "min", "map": "max", "map50": "max", "map_*": "max"}
    monitor = "val/map"
    label_kind = "boxes"
    extra_needed = "detection"
    gives_logits = False
    averages_loss = False
    reads: ClassVar[bool] = False  # whether the objects of an image make a number
    validated: tuple[str, ...] = ("map", "map50")
    shown: ClassVar[tuple[str, ...]] = ("map", "map50")
    shapes: ClassVar[tuple[float, ...]] = ANY  # height by width of the anchors of torchvision's detectors
    undefined = ("map*",)  # without a box
    keep: ClassVar[Mapping[str, Keep]] = {
        "detections": Sample(25),
        "worst": Worst(25, by="errors", among="is_wrong"),
    }

    def __init__(
        self,
        detector: DetectorName = "grid",
        *,
        backbone: str | None = None,
        cell: int = 8,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 128,
        min_score: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check("model.min_score", min_score, above=0, below=1)
        made = create_detector(
            *(detector, num_classes, in_channels, image_size),
            backbone=backbone,
            pretrained=self.hparams["pretrained"],
            cell=cell,
            weights=self.starting_weights,
            shapes=self.shapes,
        )
        self.network, self.pretrained_preprocessing = made
        self.prepare_transfer()
        self.min_score = min_score
        self.counted = ("loss", *LOSSES[detector])
        self._curves: dict[str, Any] = {}  # of the last validation and test: precision at each recall, and the classes

    def compiled(self) -> nn.Module:
        """Part of the network that `compile` compiles: the backbone."""
        return self.network.backbone  # type: ignore[return-value]

    def forward(self, images: Tensor) -> list[Prediction]:
        """Detections in each of the images `(n, in_channels, image_size, image_size)`, in evaluation mode."""
        with self.as_compiled(images):
            return [self.read(found) for found in self.network(list(images))]

    def read(self, found: dict[str, Tensor]) -> Prediction:
        """The detections in an image with labels from 0 on, and which of them are `chosen`."""
        objects = found["labels"] > 0  # torchvision's RetinaNet and FCOS have scores of the background, too
        scores = found["scores"][objects].float()
        chosen = torch.nonzero(scores >= self.min_score).flatten()
        boxes, labels = found["boxes"][objects].float(), found["labels"][objects] - 1
        return {"boxes": boxes, "labels": labels, "scores": scores, "chosen": chosen}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the detector's losses, and each of them.

        Args:
            batch: Images `(b, channels, side, side)` and labels `(b, max_boxes, 5)`.
        """
        images, labels = batch
        with self.as_compiled(images):
            losses: dict[str, Tensor] = self.network(list(images), targets(labels))
        sums = {f"loss_{name.removeprefix('loss_')}": value.detach() * len(images) for name, value in losses.items()}
        return torch.stack([*losses.values()]).sum(), sums

    def make_metrics(self, stage: str) -> DetectionMetrics:
        """Makes the metrics of `val` or `test`."""
        return DetectionMetrics(per_class=stage == "test")

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Any]:
        """Adds a batch to the metrics.

        Returns:
            The `predictions` of each image, the `labels` `(b, max_boxes, 5)`, and the number of `errors` in each image
            `(b,)`: objects that were missed, and confident detections that are none.
        """
        images, labels = batch
        predictions: list[Prediction] = self(images)
        metrics.update(predictions, labels)
        pairs = zip(predictions, labels, strict=True)
        errors = torch.tensor([sum(mistakes(found, label)) for found, label in pairs], device=labels.device)
        return {"predictions": predictions, "labels": labels, "errors": errors.float(), "is_wrong": errors > 0}

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, in the test with one of each class that occurs in it."""
        found = super().results(stage)
        self._curves[stage] = self.metrics[stage].curves  # type: ignore[union-attr]
        names = self.names_of(self.trainer.datamodule)  # type: ignore[attr-defined]
        numbered = {f"map_{number}": f"map_{name}" for number, name in enumerate(names)}
        return {numbered.get(name, name): value for name, value in found.items()}

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Detections in each image: `boxes`, `labels`, `scores` and `chosen`."""
        found: list[Prediction] = self(batch[0])
        return found

    def prediction_table(self, outputs: Sequence[list[Prediction]], examples: Examples) -> Table:
        """The confident detections in each image, for `predict`.

        Args:
            outputs: What `predict_step` gave for each batch.
            examples: The photos.

        Returns:
            Names of the columns, and a row for each image: how many `objects`, the highest `score`, and the `boxes` as
            `class:left:top:right:bottom:score` with a blank between two, the most confident first, in pixels of the
            photo. Blanks and colons in the names of classes are written as `_`.
        """
        rows = []
        for found, boxes in zip(chosen_in(outputs), self.photo_boxes(outputs, examples), strict=True):
            scores = found["scores"].tolist()
            rows.append([str(len(scores) or ""), max(scores, default=0.0), self.written(found, boxes, examples)])
        return ["objects", "score", "boxes"], rows

    def photo_boxes(self, outputs: Sequence[list[Prediction]], examples: Examples) -> list[Any]:
        """The boxes of the confident detections, `(k, 4)` for each image, in pixels of the photo."""
        return [examples.to_photo(found["boxes"].cpu().numpy(), row) for row, found in enumerate(chosen_in(outputs))]

    def written(self, found: Prediction, boxes: Any, examples: Examples) -> str:
        """The detections in a photo as text.

        Args:
            found: Its confident detections.
            boxes: Their boxes in pixels of the photo, `(k, 4)`.
            examples: The photos, for the names of the classes.
        """
        names = [name.replace(" ", "_").replace(":", "_") for name in self.names_of(examples)]
        rows = zip(found["labels"].tolist(), boxes, found["scores"].tolist(), strict=True)
        return " ".join(
            f"{names[label]}:{':'.join(f'{edge:.0f}' for edge in box)}:{score:.3f}" for label, box, score in rows
        )

    def exported(self) -> tuple[nn.Module, dict[str, str]]:
        """What `export` writes: all boxes with their scores, before non-maximum suppression, and how it is done.

        Raises:
            UserError: If the detector has no such outputs.
        """
        hparams = self.hparams
        side = hparams["image_size"]
        network = ScoredBoxes(self.network, torch.zeros(1, hparams["in_channels"], side, side))
        limits = {"score": SCORE, "overlap": OVERLAP, "detections": DETECTIONS, "min_score": self.min_score}
        return network, {"output": "boxes", "detector": json.dumps(network.selection | limits | {"reads": self.reads})}

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Precision over recall, and the boxes found in a sample of the images and in those with the most errors."""
        from lightning_cnn.figures.detection import draw_detections, precision_curves

        names = self.names_of(data)
        curves = self._curves.get("test" if title == "test" else "val")
        if curves is not None:
            precision, classes = curves
            yield "precision", precision_curves(precision, [names[label] for label in classes], title)
        for name, rows in kept.items():
            if len(rows.get(IMAGES, ())):
                predictions, labels = rows["predictions"], rows["labels"]
                titles = self.titles(predictions, labels)
                yield name, draw_detections(rows[IMAGES], predictions, labels, titles, names)

    def titles(self, predictions: Sequence[Prediction], labels: Tensor) -> list[str]:
        """What stands above the images in figures: how many objects are missed, and how many detections are wrong."""
        titles = []
        for found, label in zip(predictions, labels, strict=True):
            missed, wrong = mistakes(found, label)
            words = [f"{missed} missed"] * (missed > 0) + [f"{wrong} wrong"] * (wrong > 0)
            titles.append(", ".join(words) or "right")
        return titles

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the curves of the last validation, whose figure may be drawn later."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CURVES] = self._curves.get("val")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes them up."""
        super().on_load_checkpoint(checkpoint)
        self._curves["val"] = checkpoint.get(CURVES)


def targets(labels: Tensor) -> list[dict[str, Tensor]]:
    """Targets of a torchvision detector for each image: `boxes` `(m, 4)` and `labels` `(m,)`, starting at 1.

    `crowds` `(k, 4)` are beside them, for a detector that ignores what it finds there.

    Args:
        labels: `(n, max_boxes, 5)`: class, left, top, right, bottom in pixels; class -1 in rows that are not there, and
            -2 - c for a crowd of class c, which is no target.
    """
    kinds = labels[..., 0]
    return [
        {"boxes": label[objects, 1:], "labels": label[objects, 0].long() + 1, "crowds": label[crowds, 1:]}
        for label, objects, crowds in zip(labels, kinds >= 0, kinds <= -2, strict=True)
    ]


def chosen_in(outputs: Sequence[list[Prediction]]) -> list[Prediction]:
    """The confident detections alone, of each image of all batches."""
    tables = [found for batch in outputs for found in batch]
    return [{name: found[name][found["chosen"]] for name in ("boxes", "labels", "scores")} for found in tables]


def mistakes(found: Prediction, label: Tensor) -> tuple[int, int]:
    """How many objects of an image are missed, and how many confident detections are wrong.

    The most confident detection chooses first, among the objects of its class with an IoU of at least 0.5 that are
    left. One that lies at least half within a crowd of its class is neither right nor wrong.

    Args:
        found: The detections.
        label: `(max_boxes, 5)`.
    """
    label = label.to(found["boxes"].device)
    true, crowds = label[label[:, 0] >= 0], label[label[:, 0] <= -2]
    boxes, kinds = found["boxes"][found["chosen"]], found["labels"][found["chosen"]]
    shares = box_iou(boxes, true[:, 1:]) * (kinds[:, None] == true[None, :, 0])
    wrong, free = 0, torch.ones(len(true), device=label.device)
    for box, kind, row in zip(boxes, kinds, shares, strict=True):
        share, place = (row * free).max(0) if len(true) else (row.new_zeros(()), 0)
        if share >= OVERLAP:
            free[place] = 0
        else:
            wrong += not _in_crowd(box, crowds[crowds[:, 0] == -2 - kind, 1:])
    return int(free.sum()), wrong


def _in_crowd(box: Tensor, crowds: Tensor) -> bool:
    inside = torch.minimum(box[2:], crowds[:, 2:]) - torch.maximum(box[:2], crowds[:, :2])
    return bool((inside.clamp(min=0).prod(1) >= OVERLAP * (box[2:] - box[:2]).prod()).any())
