"""The bases of tasks on images with one network, and of those with metrics of classes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_cnn.errors import UserError, first_line
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, All, Keep, Sample, Table, Worst
from lightning_cnn.modules.base import NetworkTask
from lightning_cnn.modules.class_weights import balanced, balanced_labels, check_weights
from lightning_cnn.modules.transfer import TransferTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = tuple[Tensor, Tensor]


class ImageTask(TransferTask, NetworkTask):
    """Base class of tasks on images.

    Args:
        architecture: Name of the network: one of ours, any timm model, or your own as `my_file.my_network`.
        image_size: Side of the images in pixels; taken from the data.
        channels_last: Whether to store images in the channels-last memory format, in which most convolutions are
            faster; `auto` for all networks with convolutions that take it, on a CPU.

    Raises:
        UserError: If the network does not exist, the images or the weights don't fit it, or the options of the
            transfer contradict each other.
    """

    def __init__(
        self,
        architecture: str = "lenet5",
        *,
        image_size: int = 28,
        channels_last: bool | Literal["auto"] = "auto",
        **options: Any,
    ) -> None:
        super().__init__(architecture=architecture, **options)
        self.memory_format = torch.channels_last if channels_last is True else torch.contiguous_format
        self.make_network(image_size, self.hparams["pretrained"])
        self.prepare_transfer()

    def compute_as(self, **chosen: bool) -> None:
        """Sets how the network is computed, before the training.

        Args:
            chosen: Hyperparameters, of `computing()`.
        """
        super().compute_as(**chosen)
        self.memory_format = torch.channels_last if self.hparams["channels_last"] is True else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def on_fit_start(self) -> None:
        """Lets a network that wants it look at training images before its first step.

        Raises:
            UserError: If layers with random weights would be frozen, or the network does not take small images.
        """
        super().on_fit_start()
        self._check_small_images()
        begin = getattr(self.network, "init_from_images", None)
        sample = getattr(self.trainer.datamodule, "training_images", None)  # type: ignore[attr-defined]
        if begin and sample and self.is_fresh:
            begin(sample(5000).to(self.device))

    @torch.no_grad()
    def _check_small_images(self) -> None:
        """Tries the size of the images of the first epochs, and says when there will be no others.

        Raises:
            UserError: If the network does not take it.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        side = getattr(data, "small_side", None)
        if side is None:
            return
        ends = [float(self.trainer.max_epochs or -1)]
        if self.trainer.max_steps > 0:
            updates, per_epoch = self.updates()
            ends.append(updates / per_epoch)
        epochs = min((end for end in ends if end > 0), default=math.inf)
        if epochs <= data.augmentation.small_epochs:
            rank_zero_warn(
                f"data.augment.small_epochs {data.augmentation.small_epochs} of {epochs:.3g} epochs: "
                "no image of full size is trained on; set it below the length of the training"
            )
        training = self.network.training
        try:
            images = torch.zeros(2, self.hparams["in_channels"], side, side, device=self.device)
            self.network.eval().forward(images)
        except Exception as error:  # as many kinds as there are networks
            raise UserError(
                f"`data.augment.small_epochs`: {self.hparams['architecture']} does not take images of {side} pixels "
                f"({first_line(error)}): remove it, or set another `data.augment.small_scale`"
            ) from None
        finally:
            self.network.train(training)


class WeightedTask(ImageTask):
    """Base class of tasks whose training loss may weigh the classes.

    Args:
        class_weights: Weight of each class in the training loss, the mean over the images of weight times loss: a list
            of numbers in the order of the classes, or `balanced`, inversely proportional to the number of training
            images of the class. Of images with several labels: weight of the images that have a label. Of masks:
            weight of the pixels of a class.
    """

    class_weights: Tensor

    def __init__(
        self,
        architecture: str = "lenet5",
        *,
        class_weights: list[float] | Literal["balanced"] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(architecture, **options)
        classes = self.hparams["num_classes"]
        self.is_weighted = class_weights is not None
        if is_given := class_weights is not None and class_weights != "balanced":
            check_weights(class_weights, classes)  # type: ignore[arg-type]
        weights = torch.tensor(class_weights, dtype=torch.float32) if is_given else torch.ones(classes)
        # those of `balanced` are counted again where a run is resumed
        self.register_buffer("class_weights", weights, persistent=False)

    def on_fit_start(self) -> None:
        """Counts the training images or pixels of each class, if the weights are to be balanced.

        Raises:
            UserError: If the data don't tell.
        """
        super().on_fit_start()
        if self.hparams["class_weights"] == "balanced":
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            train = data.dataset("train") if hasattr(data, "counts") else ()
            counts = data.counts(train) if hasattr(data, "counts") else None
            if counts is None:
                raise UserError(
                    "`model.class_weights` balanced requires data that count the images of each class: give a list "
                    "of numbers"
                )
            self.class_weights.copy_(self.balanced(counts, len(train)))

    def balanced(self, counts: Tensor, images: int) -> Tensor:
        """The weights that make all classes, or having and lacking a label, count alike, `(num_classes,)`.

        Args:
            counts: How many training images, or pixels, each class or label has.
            images: Number of training images.
        """
        return balanced_labels(counts, images) if self.label_kind == "any number of labels" else balanced(counts)


class ClassTask(WeightedTask):
    """Base class of tasks with one output per class or label.

    A subclass has `counts` among its metrics: of each class true and false positives, true and false negatives, and how
    often it occurs. Its `measure` returns `losses`, `predictions` and `labels`.

    Attributes:
        of_class: What the test logs of each class: `acc` or `f1`.
    """

    better: ClassVar[Better] = {"f1": "max"}
    keep: ClassVar[Mapping[str, Keep]] = {
        "answers": All("labels", "predictions"),
        "worst": Worst(25, by="losses", among="is_wrong"),
        "predictions": Sample(25),
    }
    of_class: ClassVar[Literal["acc", "f1"]] = "f1"

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, in the test with one of each class that occurs in it."""
        found = super().results(stage)
        right, wrong, _, missed, occurs = found.pop("counts").unbind(1)
        each = {"acc": right / occurs, "f1": 2 * right / (2 * right + wrong + missed)}
        found["f1"] = each["f1"][occurs > 0].mean()
        found = {name: found[name] for name in (*self.validated, *found)}
        if stage == "test":
            rows = zip(self.names_of(self.trainer.datamodule), each[self.of_class], occurs.tolist(), strict=True)  # type: ignore[attr-defined]
            found |= {f"{self.of_class}_{name}": value for name, value, count in rows if count}
        return found

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """The wrong predictions with the largest loss, and a sample, with the labels predicted and the true ones."""
        from lightning_cnn.figures.images import answer, image_grid

        names = self.names_of(data)
        for name, rows in kept.items():
            if len(rows.get(IMAGES, ())):
                texts = ([names_in(row, names) for row in rows[column]] for column in ("predictions", "labels"))
                yield name, image_grid(rows[IMAGES], [*map(answer, *texts)])

    def tables(self, kept: Mapping[str, Mapping[str, Any]], data: Any) -> Iterator[tuple[str, Table]]:
        """Precision and recall of each class; where an image has one class, which ones are confused."""
        from lightning_cnn.figures.classification import class_tables

        if "answers" in kept:  # not of a run that version 0.2 began
            yield from class_tables(kept["answers"], self.names_of(data))


def names_in(labels: Tensor, names: Sequence[str]) -> str:
    """The labels of an image in words; `none` without one.

    Args:
        labels: `(labels,)`, 1 where it has the label.
        names: Of all labels.
    """
    return "+".join(names[place] for place in labels.nonzero().flatten()) or "none"
