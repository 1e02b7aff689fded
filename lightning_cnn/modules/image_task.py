"""The bases of tasks on images with one network: pre-trained weights, transfer, metrics of classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pytorch_lightning import Callback
from torch import Tensor

from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, Keep, Sample, Worst
from lightning_cnn.modules.base import NetworkTask
from lightning_cnn.modules.fine_tuning import FineTuning, divide

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = tuple[Tensor, Tensor]


class ImageTask(NetworkTask):
    """Base class of tasks on images.

    Args:
        architecture: Name of the network: one of ours, any timm model, or your own as `my_file.my_network`.
        image_size: Side of the images in pixels; taken from the data.
        pretrained: Whether to start from timm's pre-trained weights (needs a network connection).
        transfer: Which layers are trained: `full`, all layers; `frozen`, the head only; `staged`, first the head, then
            also the layers from `unfreeze_from` on.
        unfreeze_from: First layer that `staged` unfreezes, such as `layer4`; default all layers.
        unfreeze_epoch: Epoch, counted from 0, in which `staged` unfreezes them.
        unfreeze_lr: Learning rate of the unfrozen layers; default a tenth of `lr`.
        channels_last: Whether to store images in the channels-last memory format, which is faster for many
            convolutions.

    Raises:
        UserError: If the network does not exist, the images or the weights don't fit it, or the options of the
            transfer contradict each other.
    """

    def __init__(
        self,
        architecture: str = "lenet5",
        *,
        image_size: int = 28,
        pretrained: bool = False,
        transfer: Literal["full", "frozen", "staged"] = "full",
        unfreeze_from: str | None = None,
        unfreeze_epoch: int = 3,
        unfreeze_lr: float | None = None,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(architecture, **options)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.make_network(image_size, pretrained)
        if unfreeze_from is not None and transfer != "staged":
            raise UserError(f"`model.unfreeze_from` {unfreeze_from} requires `model.transfer` staged: add it")
        later = (unfreeze_from or "") if transfer == "staged" else None
        self._fine_tuning = FineTuning(later, unfreeze_epoch) if transfer != "full" else None
        self._parts = divide(self.network, later) if transfer != "full" else None

    def configure_callbacks(self) -> list[Callback]:
        """The callback that freezes and unfreezes layers, if `transfer` requires one."""
        return [] if self._fine_tuning is None else [self._fine_tuning]

    def on_fit_start(self) -> None:
        """Lets a network that wants it look at training images before its first step.

        Raises:
            UserError: If layers are to stay as they are that nobody has trained.
        """
        begin = getattr(self.network, "init_from_images", None)
        sample = getattr(self.trainer.datamodule, "training_images", None)  # type: ignore[attr-defined]
        fresh = self.pretrained_preprocessing is None and self.trainer.ckpt_path is None
        if fresh and self._fine_tuning:
            raise UserError(
                f"`model.transfer` {self.hparams['transfer']} freezes layers with random weights: add "
                "`model.pretrained` true or `model.weights` FILE"
            )
        if begin and sample and fresh:
            begin(sample(5000).to(self.device))

    def names_of(self, data: Any) -> Sequence[str]:
        """The names of the classes that the data have, else their numbers."""
        names: Sequence[str] = getattr(data, "class_names", ())
        return names or [str(number) for number in range(self.hparams["num_classes"])]


class ClassTask(ImageTask):
    """Base class of tasks with one output per class or label.

    A subclass has `counts` among its metrics: of each class true and false positives, true and false negatives, and how
    often it occurs. Its `measure` returns `losses`, `predictions` and `labels`.

    Attributes:
        of_class: What the test logs of each class: `acc` or `f1`.
    """

    better: ClassVar[Better] = {"f1": "max"}
    keep: ClassVar[Mapping[str, Keep]] = {"worst": Worst(25, by="losses"), "predictions": Sample(25)}
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
        """The images with the largest loss, and a sample, with the labels predicted and the true ones."""
        from lightning_cnn.figures.images import answer, image_grid

        names = self.names_of(data)
        for name, rows in kept.items():
            if len(rows.get(IMAGES, ())):
                texts = ([names_in(row, names) for row in rows[column]] for column in ("predictions", "labels"))
                yield name, image_grid(rows[IMAGES], [*map(answer, *texts)])


def names_in(labels: Tensor, names: Sequence[str]) -> str:
    """The labels of an image in words; `none` without one.

    Args:
        labels: `(labels,)`, 1 where it has the label.
        names: Of all labels.
    """
    return "+".join(names[place] for place in labels.nonzero().flatten()) or "none"
