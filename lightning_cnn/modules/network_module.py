"""What all modules with one network of timm's kind have in common: how it is made, called, and counted in training."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cnn.evaluation.directions import Better
from lightning_cnn.modules.network import create_network, input_shape
from lightning_cnn.modules.optimization import OptimizedModule
from lightning_cnn.modules.pretrained import pretrained_preprocessing, read_weights


class NetworkModule(OptimizedModule):
    """A module with one network, `network`, that maps images to `(batch, outputs)`.

    A subclass saves its hyperparameters, `compile` among them, and calls `make_network`.
    """

    better: ClassVar[Better] = {"loss_step": "min", "acc": "max"}
    pretrained_preprocessing: dict[str, Any] | None = None
    counted: tuple[str, ...] = ("loss", "acc")  # what is logged of an epoch's training

    def make_network(
        self,
        architecture: str,
        outputs: int,
        in_channels: int,
        image_size: int,
        pretrained: bool,
        weights: str | None,
        options: dict[str, Any] | None,
        channels_last: bool,
    ) -> None:
        """Makes the network; remembers how its images are scaled where it has pre-trained weights.

        Args:
            architecture: Name of the network.
            outputs: Size of the output.
            in_channels: Channels of the images.
            image_size: Side of the images in pixels, or length of the sequences.
            pretrained: Whether to start from the weights that timm knows of, unless `weights` names others.
            weights: File of weights to start from.
            options: Further arguments of the network.
            channels_last: Whether to keep images in memory with the channels last.

        Raises:
            UserError: If the network or the weights can't be had, or don't fit the images.
        """
        read = read_weights(weights) if weights is not None else None
        self.network = create_network(
            architecture, outputs, in_channels, image_size, pretrained and not read, options, read
        )
        if pretrained or read:
            own = read.preprocessing if read else None
            self.pretrained_preprocessing = own or pretrained_preprocessing(self.network, in_channels)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        self.example_input_array = torch.zeros(1, *input_shape(architecture, in_channels, image_size))

    def setup(self, stage: str) -> None:
        """Compiles the network where that is wanted."""
        if self.hparams["compile"] and stage == "fit":
            self.network.compile()

    def forward(self, images: Tensor) -> Any:
        """What the network gives, `(batch, outputs)`, for images `(batch, in_channels, image_size, image_size)`."""
        return self.network(images.contiguous(memory_format=self.memory_format))

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """The metrics that are logged in a stage, without its name in front."""
        return (*self.counted, "loss_step") if stage == "train" else super().logged(stage)

    def count(self, loss: Tensor, correct: Tensor, batch_idx: int) -> None:
        """Adds a training batch to the sums of its epoch, and logs its loss now and then.

        Args:
            loss: Mean loss of the batch.
            correct: Which of its images are right, `(batch,)`.
            batch_idx: Number of the batch in its epoch.
        """
        with torch.no_grad():
            sums = {"loss": loss * len(correct), "acc": correct.sum()}
            self.add_up({name: sums[name] for name in self.counted}, len(correct))
        if batch_idx % 10 == 0 or (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", loss, on_step=True, on_epoch=False, prog_bar=True)
