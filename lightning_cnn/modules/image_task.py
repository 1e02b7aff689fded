"""The base of tasks on images with one network: pre-trained weights, transfer, the layout in memory."""

from typing import Any, Literal

import torch
from pytorch_lightning import Callback

from lightning_cnn.errors import UserError
from lightning_cnn.modules.base import NetworkTask
from lightning_cnn.modules.fine_tuning import FineTuning, divide


class ImageTask(NetworkTask):
    """A task with a network that sees images.

    Args:
        architecture: Name of the network: ours, any of timm, or `my_file.my_network` of your own.
        image_size: Side of the images in pixels; taken from the data.
        pretrained: Whether to start from the weights that timm knows of (needs a network connection).
        transfer: What learns of a network with pre-trained weights: `full` all of it; `frozen` its head alone, on
            frozen features; `staged` first the head, then the layers behind a named one, too.
        unfreeze_from: With `staged` the first layer that is unfrozen, such as `layer4`; default all layers.
        unfreeze_epoch: With `staged` the first epoch, counted from 0, in which they learn.
        unfreeze_lr: With `staged` their learning rate; default a tenth of `lr`.
        channels_last: Whether to keep images in memory with the channels last, faster for many convolutions.

    Raises:
        UserError: If the network does not exist, the images or the weights don't fit it, or the options of the
            transfer contradict each other.
    """

    takes = (*NetworkTask.takes, "image_size")

    def __init__(
        self,
        architecture: str,
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
            raise UserError(f"`model.unfreeze_from` {unfreeze_from} goes with `model.transfer` staged only: add that")
        later = (unfreeze_from or "") if transfer == "staged" else None
        self._fine_tuning = FineTuning(later, unfreeze_epoch) if transfer != "full" else None
        self._parts = divide(self.network, later) if transfer != "full" else None

    def configure_callbacks(self) -> list[Callback]:
        """The callback that freezes and unfreezes, where the transfer asks for it."""
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
                f"`model.transfer` {self.hparams['transfer']} freezes layers, but they have random weights: "
                "add `model.pretrained` true or `model.weights` FILE"
            )
        if begin and sample and fresh:
            begin(sample(5000).to(self.device))
