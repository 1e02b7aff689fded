"""Reading whole house numbers: one network, six heads, one sequence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.architectures.house_number import BLANK, HEADS, MAX_DIGITS, number_text
from lightning_cnn.errors import check
from lightning_cnn.evaluation.confidence import COVERAGE_ACCURACY, coverage_curve
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, All, Keep, Sample, Table, Worst
from lightning_cnn.modules.base import Examples
from lightning_cnn.modules.image_task import Batch, ImageTask
from lightning_cnn.modules.number_metrics import NumberMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class HouseNumberReader(ImageTask):
    """Reads the whole number in an image, with one head for the number of digits and one for each of five digits.

    It gives the most probable sequence, by P(length) times the probabilities of so many digits (Goodfellow et al. 2013,
    sections 4 and 5). Measured in validation and test: `loss`, `acc` (share of the numbers that are right as a whole),
    `length_acc`, `digit1_acc` to `digit5_acc` (each head over the numbers that have such a digit; left out where none
    has), `character_acc` (share of all digits that stand in their place in the sequence), and `coverage98` (largest
    share of the numbers, the surest first, of which 98 % are right). All are exact over the whole set, on any number
    of processes.

    Args:
        num_classes: Size of the output, 60; taken from the data.
        loss: Which heads are trained on an image: `present`, the length and the digits that exist, as in the paper;
            `all`, also the heads of missing digits, which learn to predict blanks, as in the book.

    Raises:
        UserError: If the network does not exist, the images or the weights don't fit it, or the data are no numbers.
    """

    better: ClassVar[Better] = {
        "length_acc": "max",
        "character_acc": "max",
        "coverage98": "max",
        **{f"digit{place}_acc": "max" for place in range(1, MAX_DIGITS + 1)},
    }
    validated = ("loss", "acc", *better)  # of places that some number has
    keep: ClassVar[Mapping[str, Keep]] = {
        "answers": All(),
        "numbers": Sample(25),
        "wrong": Worst(25, by="probabilities", among="is_wrong"),
    }
    label_kind = "whole numbers"
    heads = HEADS

    def __init__(
        self,
        architecture: str = "house_number_net",
        *,
        image_size: int = 32,
        num_classes: int = sum(HEADS),
        loss: Literal["present", "all"] = "present",
        **options: Any,
    ) -> None:
        check("model.num_classes", num_classes, least=sum(HEADS), most=sum(HEADS))
        super().__init__(architecture, image_size=image_size, num_classes=num_classes, **options)
        self.ignored = BLANK if loss == "present" else -100

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the cross-entropies of the trained heads, averaged over the images.

        Args:
            logits: `(n, 60)`.
            labels: int64 `(n, 6)`: count of digits, then the digits, 10 where there is none.
        """
        total = logits.new_zeros(())
        for head, label in zip(logits.split(HEADS, 1), labels.T, strict=True):
            total = total + F.cross_entropy(head, label, reduction="sum", ignore_index=self.ignored)
        return total / len(labels)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of images `(b, channels, side, side)` and labels `(b, 6)`, and the number of correct predictions."""
        images, labels = batch
        logits = self(images).float()
        with torch.no_grad():
            right = (read_numbers(logits)[0] == labels).all(1)
        return self.loss_of(logits, labels), {"acc": right.sum()}

    def make_metrics(self, stage: str) -> NumberMetrics:
        """Makes the metrics of `val` or `test`."""
        return NumberMetrics()

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to the metrics.

        Returns:
            The `loss`; the `numbers` read, int64 `(b, 6)`, their `probabilities` `(b,)`, and which of them
            `is_wrong`; the `labels` `(b, 6)`.
        """
        images, labels = batch
        logits = self(images).float()
        numbers, probabilities = read_numbers(logits)
        heads = torch.stack([head[:, :BLANK].argmax(1) for head in logits.split(HEADS, 1)], 1)
        metrics.update(numbers, heads, probabilities, labels)
        wrong = (numbers != labels).any(1)
        found = {"numbers": numbers, "probabilities": probabilities, "labels": labels, "is_wrong": wrong}
        return {"loss": self.loss_of(logits, labels), **found}

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """The numbers int64 `(b, 6)`, as in the labels, and their probabilities `(b,)`."""
        return read_numbers(self(batch[0]).float())

    def prediction_table(self, outputs: Sequence[tuple[Tensor, Tensor]], examples: Examples) -> Table:
        """The numbers as text, each with its probability, for `predict`.

        Args:
            outputs: What `predict_step` gave for each batch.
            examples: Not used: the images.

        Returns:
            Names of the columns, and a row for each image.
        """
        rows = [
            [number_text(number), share]
            for numbers, shares in outputs
            for number, share in zip(numbers, shares.tolist(), strict=True)
        ]
        return ["number", "probability"], rows

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Confused lengths and first digits, coverage, a sample of the numbers, and the most confident errors."""
        from lightning_cnn.figures.house_numbers import confused_numbers, coverage_figure, number_grid

        answers = kept["answers"]
        title = f"{title}: {len(answers['labels']):,} numbers"
        yield from confused_numbers(answers["numbers"], answers["labels"], BLANK, title)
        correct, confidence = ~answers["is_wrong"], answers["probabilities"]
        yield "coverage", coverage_figure(*coverage_curve(correct, confidence), COVERAGE_ACCURACY, title)
        for name in ("numbers", "wrong"):
            rows = kept[name]
            if len(rows.get(IMAGES, ())):
                read, true = (list(map(number_text, rows[column])) for column in ("numbers", "labels"))
                yield name, number_grid(rows, read, true)


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
