"""Detection of the digits of house numbers, each with its box."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from lightning_cnn.datamodules.house_numbers.letterbox import unletterbox
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.modules.detection_metrics import DetectionMetrics
from lightning_cnn.modules.detection_networks import LOSSES, OVERLAP, Detector, create_detector
from lightning_cnn.modules.optimization import OptimizedModule
from lightning_cnn.modules.pretrained import read_weights

Batch = tuple[Tensor, Tensor]
# of one image: boxes (k, 4) in pixels, labels (k,) from 0 on, scores (k,), the surest first; `number`, the text that
# the confident ones make, its `probability`, and `chosen`, which of the detections these are, from left to right
Prediction = dict[str, Any]


class DigitDetector(OptimizedModule):
    """A detector that finds each digit in an image, and reads the number that they make from left to right.

    Measured in validation and test: `map` (mean average precision over IoU of 0.5 to 0.95), `map50` (at IoU 0.5), and
    `acc`, the share of the images whose whole number is right; in the test also `map_<digit>`. The precisions are
    computed by pycocotools, over the digits that occur. There is no validation loss: choose the best epoch with
    `--checkpoint.monitor val/map`. All are exact over the whole set, on any number of processes. In training `loss` is
    the sum of the detector's losses, of which each is logged.

    Args:
        detector: `grid`, a compact one-stage detector of ours in the manner of YOLO; of torchvision's `faster_rcnn`
            with a MobileNetV3, `retinanet` and `fcos` with a ResNet-18, `ssd` (SSDlite) with a MobileNetV3.
        num_classes: Number of classes; taken from the data.
        in_channels: Channels of the images; taken from the data.
        image_size: Side of the images in pixels; taken from the data.
        weights: File of weights to start from: a state dict (.pth, .safetensors), or a checkpoint of another run.
        min_score: Score from which a detection is a digit of the number.
        optimizer: Name of an optimizer in timm: sgd (Nesterov), momentum (SGD), adam, adamw, rmsprop, ...
        lr: Learning rate.
        momentum: Momentum, for optimizers that have one.
        weight_decay: Weight decay; biases and normalization layers are left out.
        optimizer_options: Further arguments of the optimizer, such as `{"alpha": 0.9, "eps": 1e-7}`.
        schedule: Course of the learning rate over the run: none, cosine, linear, or step.
        warmup_epochs: Epochs over which the learning rate rises from near zero.
        min_lr: Learning rate at the end of the cosine or linear schedule.
        decay_epochs: Epochs between two steps of the step schedule.
        decay_rate: Factor of each step of the step schedule.
        compile: Whether to compile the backbone with torch.compile.

    Raises:
        UserError: If there is no such detector, the images or the weights don't fit it, or the data have no boxes.
    """

    better: ClassVar[Better] = {"loss_*": "min", "map": "max", "map50": "max", "acc": "max", "map_*": "max"}

    def __init__(
        self,
        detector: Detector = "grid",
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 128,
        weights: str | None = None,
        min_score: float = 0.5,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        optimizer_options: dict[str, Any] | None = None,
        schedule: Literal["none", "cosine", "linear", "step"] = "none",
        warmup_epochs: float = 0.0,
        min_lr: float = 0.0,
        decay_epochs: float = 30.0,
        decay_rate: float = 0.1,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if not 0 < min_score < 1:
            raise UserError(f"--model.min_score {min_score}: it must lie between 0 and 1")
        self.network = create_detector(detector, num_classes, in_channels, image_size)
        if weights is not None:
            _load(self.network, weights, detector)
        self.min_score = min_score
        self.metrics = nn.ModuleDict({"val": DetectionMetrics(), "test": DetectionMetrics(per_class=True)})

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """The metrics that are logged in a stage, without its name in front."""
        return ("loss", "loss_step", *LOSSES[self.hparams["detector"]]) if stage == "train" else ("map", "map50", "acc")

    def setup(self, stage: str) -> None:
        """Looks whether the data have boxes; compiles the backbone where that is wanted."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage != "predict" and data is not None and not hasattr(data, "max_boxes"):
            raise UserError(
                f"DigitDetector learns from boxes, and {type(data).__name__} has none: take --data SVHNBoxes or "
                "SyntheticBoxes"
            )
        if self.hparams["compile"] and stage == "fit":
            self.network.backbone.compile()  # type: ignore[union-attr, operator]

    def forward(self, images: Tensor) -> list[Prediction]:
        """What is found in each of the images `(n, in_channels, image_size, image_size)`, in evaluation mode."""
        return [self._read(found) for found in self.network(list(images))]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the detector's losses.

        Args:
            batch: Images `(b, channels, side, side)` and labels `(b, max_boxes, 5)`.
            batch_idx: Number of the batch in its epoch.
        """
        images, labels = batch
        losses: dict[str, Tensor] = self.network(list(images), targets(labels))
        loss = torch.stack([*losses.values()]).sum()
        sums = {"loss": loss} | {f"loss_{name.removeprefix('loss_')}": value for name, value in losses.items()}
        self.add_up({name: value.detach() * len(images) for name, value in sums.items()}, len(images))
        if batch_idx % 10 == 0 or (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", loss, on_step=True, on_epoch=False, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Measures a batch of the validation part; see `_measure`."""
        return self._measure(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Measures a batch of the test part; see `_measure`."""
        return self._measure(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """What is found in each image: `boxes`, `labels`, `scores`, `number` and `probability`."""
        found: list[Prediction] = self(batch[0])
        return found

    def prediction_table(
        self,
        outputs: Sequence[list[Prediction]],
        sizes: Sequence[tuple[int, int]],
    ) -> tuple[list[str], list[list[str]]]:
        """The numbers as text, each with its probability and the boxes of its digits, for `predict`.

        Args:
            outputs: What `predict_step` gave for each batch.
            sizes: Width and height of each photo.

        Returns:
            Names of the columns, and a row for each image. Boxes stand from left to right, with a blank between two, as
            `digit:left:top:right:bottom:score`, in pixels of the photo.
        """
        rows = []
        for number, found in enumerate(found for batch in outputs for found in batch):
            chosen = found["chosen"]
            boxes = unletterbox(found["boxes"][chosen].cpu().numpy(), [sizes[number]], self.hparams["image_size"])
            written = [
                f"{digit}:{':'.join(f'{edge:.0f}' for edge in box)}:{score:.3f}"
                for digit, box, score in zip(
                    found["labels"][chosen].tolist(), boxes, found["scores"][chosen].tolist(), strict=True
                )
            ]
            rows.append([found["number"], f"{found['probability']:.6f}", " ".join(written)])
        return ["number", "probability", "boxes"], rows

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the whole validation part."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the whole test part."""
        self._log_metrics("test")

    def _read(self, found: dict[str, Tensor]) -> Prediction:
        """Detections with labels from 0 on, and the number that they make."""
        number = {"boxes": found["boxes"].float(), "labels": found["labels"] - 1, "scores": found["scores"].float()}
        return number | read_number(number["boxes"], number["labels"], number["scores"], self.min_score)

    def _measure(self, batch: Batch, stage: str) -> dict[str, Any]:
        """Adds a batch to the metrics.

        Returns:
            The `predictions` of each image, the `labels` `(b, max_boxes, 5)`, and which numbers are `right` `(b,)`.
        """
        images, labels = batch
        predictions: list[Prediction] = self(images)
        pairs = zip(predictions, labels, strict=True)
        right = torch.tensor([found["number"] == number_of(label) for found, label in pairs], device=labels.device)
        self.metrics[stage].update(predictions, labels, right)  # type: ignore[operator]
        return {"predictions": predictions, "labels": labels, "right": right}

    def _log_metrics(self, stage: str) -> None:
        values: dict[str, Tensor] = self.metrics[stage].compute()  # type: ignore[operator]
        # the values are equal on all processes already; sync_dist only says so to Lightning
        for name, value in values.items():
            if value.isnan() and not self.trainer.sanity_checking:
                continue  # not defined without a box; the sanity check only shows which metrics there are
            self.log(f"{stage}/{name}", value, prog_bar=stage == "val" and name in ("map", "acc"), sync_dist=True)
        self.metrics[stage].reset()  # type: ignore[operator]


def targets(labels: Tensor) -> list[dict[str, Tensor]]:
    """What a detector learns from, of each image: `boxes` `(m, 4)` and `labels` `(m,)`, from 1 on.

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
    """Reads the confident digits from left to right; where two lie over each other, the surer.

    Args:
        boxes: `(k, 4)` in pixels.
        labels: Digits, `(k,)`.
        scores: `(k,)`.
        min_score: Score from which a detection is a digit.

    Returns:
        `number`, the text, which may be empty; `probability`, the product of the scores, 0 without a digit; and
        `chosen`, the positions of the digits, int64.
    """
    sure = torch.nonzero(scores >= min_score).flatten()
    sure = sure[nms(boxes[sure], scores[sure], OVERLAP)]
    sure = sure[(boxes[sure, 0] + boxes[sure, 2]).argsort()]
    text = "".join(map(str, labels[sure].tolist()))
    return {"number": text, "probability": float(scores[sure].prod()) if text else 0.0, "chosen": sure}


def _load(network: nn.Module, weights: str, detector: str) -> None:
    try:
        network.load_state_dict(read_weights(weights).state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[1].strip()[:120]
        raise UserError(f"the weights in {weights} are not those of {detector} ({reason}): name its own file") from None
