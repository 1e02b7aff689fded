"""Reading whole house numbers: one network, six heads, one sequence."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from lightning_cnn.architectures.house_number import BLANK, HEADS, MAX_DIGITS, number_text
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.modules.network_module import NetworkModule
from lightning_cnn.modules.number_metrics import NumberMetrics

Batch = tuple[Tensor, Tensor]


class HouseNumberReader(NetworkModule):
    """A network that reads the whole number in an image: one head for the count of digits, one for each of five digits.

    It gives the most probable sequence, by P(length) times the probabilities of so many digits (Goodfellow et al. 2013,
    sections 4 and 5). Measured in validation and test: `loss`, `acc` (share of the numbers that are right as a whole),
    `length_acc`, `digit1_acc` to `digit5_acc` (each head over the numbers that have such a digit; left out where none
    has), `character_acc` (share of all digits that stand in their place in the sequence), and `coverage98` (largest
    share of the numbers, the surest first, of which 98 % are right). All are exact over the whole set, on any number
    of processes.

    Args:
        architecture: Name of the network: ours, any of timm, or `my_file.my_network` of your own.
        in_channels: Channels of the images; taken from the data.
        image_size: Side of the images in pixels; taken from the data.
        num_classes: Size of the output, 60; taken from the data.
        pretrained: Whether to start from the weights that timm knows of (needs a network connection).
        weights: File of weights to start from: a state dict (.pth, .safetensors), or a checkpoint of another run.
        loss: Which heads learn from an image: `present` those of the length and of the digits that are there, as in the
            paper; `all` also those of missing digits, which learn to say so, as in the book.
        architecture_options: Further arguments of the network, such as `{"drop_rate": 0.3}`.
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
        compile: Whether to compile the network with torch.compile.
        channels_last: Whether to keep images in memory with the channels last, faster for many convolutions.

    Raises:
        UserError: If the network does not exist, the images or the weights don't fit it, or the data are no numbers.
    """

    better: ClassVar[Better] = {
        "length_acc": "max",
        "character_acc": "max",
        "coverage98": "max",
        **{f"digit{place}_acc": "max" for place in range(1, MAX_DIGITS + 1)},
    }
    heads = HEADS

    def __init__(
        self,
        architecture: str = "house_number_net",
        in_channels: int = 1,
        image_size: int = 32,
        num_classes: int = sum(HEADS),
        pretrained: bool = False,
        weights: str | None = None,
        loss: Literal["present", "all"] = "present",
        architecture_options: dict[str, Any] | None = None,
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
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if num_classes != sum(HEADS):
            raise UserError(
                f"HouseNumberReader reads images of whole numbers, but these data have {num_classes} classes: "
                "take --data SVHNNumbers or SyntheticNumbers, or --model ImageClassifier"
            )
        self.make_network(
            architecture, num_classes, in_channels, image_size, pretrained, weights, architecture_options, channels_last
        )
        self.ignored = BLANK if loss == "present" else -100
        self.metrics = nn.ModuleDict({stage: NumberMetrics() for stage in ("val", "test")})
        self.losses = nn.ModuleDict({stage: MeanMetric(nan_strategy=math.nan) for stage in ("val", "test")})

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """The metrics that are logged in a stage, without its name in front; of places that some number has."""
        return super().logged(stage) if stage == "train" else ("loss", "acc", *HouseNumberReader.better)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the images of the sum of the cross-entropies of the heads that learn from each.

        Args:
            logits: `(n, 60)`.
            labels: int64 `(n, 6)`: count of digits, then the digits, 10 where there is none.
        """
        total = logits.new_zeros(())
        for head, label in zip(logits.split(HEADS, 1), labels.T, strict=True):
            total = total + F.cross_entropy(head, label, reduction="sum", ignore_index=self.ignored)
        return total / len(labels)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Args:
            batch: Images `(b, channels, side, side)` and labels `(b, 6)`.
            batch_idx: Number of the batch in its epoch.
        """
        images, labels = batch
        logits = self(images)
        loss = self.loss(logits.float(), labels)
        with torch.no_grad():
            numbers, _ = read_numbers(logits.float())
            self.count(loss, (numbers == labels).all(1), batch_idx)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the validation part; see `_measure`."""
        return self._measure(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the test part; see `_measure`."""
        return self._measure(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """The numbers int64 `(b, 6)`, as in the labels, and their probabilities `(b,)`."""
        return read_numbers(self(batch[0]).float())

    def prediction_table(
        self, outputs: Sequence[tuple[Tensor, Tensor]], sizes: Sequence[tuple[int, int]]
    ) -> tuple[list[str], list[list[str]]]:
        """The numbers as text, each with its probability, for `predict`.

        Args:
            outputs: What `predict_step` gave for each batch.
            sizes: Not used: width and height of each image.

        Returns:
            Names of the columns, and a row for each image.
        """
        rows = [
            [number_text(number), f"{share:.6f}"]
            for numbers, shares in outputs
            for number, share in zip(numbers, shares.tolist(), strict=True)
        ]
        return ["number", "probability"], rows

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the whole validation part."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the whole test part."""
        self._log_metrics("test")

    def _measure(self, batch: Batch, stage: str) -> dict[str, Tensor]:
        """Adds a batch to the metrics.

        Returns:
            The numbers read, int64 `(b, 6)`; their `probabilities` `(b,)`; the `labels` `(b, 6)`.
        """
        images, labels = batch
        logits = self(images).float()
        numbers, probabilities = read_numbers(logits)
        self.losses[stage].update(self.loss(logits, labels), weight=len(labels))  # type: ignore[operator]
        heads = torch.stack([head[:, :BLANK].argmax(1) for head in logits.split(HEADS, 1)], 1)
        self.metrics[stage].update(numbers, heads, probabilities, labels)  # type: ignore[operator]
        return {"numbers": numbers, "probabilities": probabilities, "labels": labels}

    def _log_metrics(self, stage: str) -> None:
        loss: Tensor = self.losses[stage].compute()  # type: ignore[operator]
        values: dict[str, Tensor] = self.metrics[stage].compute()  # type: ignore[operator]
        # the values are equal on all processes already; sync_dist only says so to Lightning
        self.log(f"{stage}/loss", loss, prog_bar=stage == "val", sync_dist=True)
        for name, value in values.items():
            self.log(f"{stage}/{name}", value, prog_bar=stage == "val" and name == "acc", sync_dist=True)
        self.losses[stage].reset()  # type: ignore[operator]
        self.metrics[stage].reset()  # type: ignore[operator]


def read_numbers(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable number of each image.

    Of all numbers with so many digits that one has the highest probability that takes the best digit at each place: so
    one look at each length is enough. The probability of a number is P(length) times those of its digits.

    Source: Goodfellow et al. (2013), section 4 and appendix A.

    Args:
        logits: `(n, 60)`.

    Returns:
        The numbers, int64 `(n, 6)`, as labels are written; and their probabilities `(n,)`.
    """
    lengths, *places = [head.log_softmax(1) for head in logits.split(HEADS, 1)]
    best = torch.stack([place[:, :BLANK].max(1).values for place in places], 1)
    digits = torch.stack([place[:, :BLANK].argmax(1) for place in places], 1)
    scores = lengths + F.pad(best.cumsum(1), (1, 0))
    score, length = scores.max(1)
    digits = digits.masked_fill(torch.arange(len(places), device=logits.device) >= length[:, None], BLANK)
    return torch.cat([length[:, None], digits], 1), score.exp()
