"""The bases of all tasks: options, steps and logging are declared here once; a task gives its loss and its metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from lightning_cnn.errors import UserError, check, require
from lightning_cnn.evaluation.directions import Better, Direction, declared, direction_of
from lightning_cnn.figures.collected import Keep, Table
from lightning_cnn.modules.network import create_network, input_shape
from lightning_cnn.modules.optimization import OptimizedModule
from lightning_cnn.modules.pretrained import pretrained_preprocessing, read_weights
from lightning_cnn.options import FACTS, merged_signature, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("val", "test")
COMPUTING = ("compile", "channels_last")  # hyperparameters that say how a network is computed
# options that say what a loss is: losses of different values of one are not on one scale
LOSS_OPTIONS = ("model.loss", "model.criterion", "model.focal_gamma", "model.reconstruction_weight")
SHOWN_EVERY = 10  # steps between two losses beside a progress bar
# hyperparameters that say which weights a training begins with, as those of a checkpoint need none
STARTING_WEIGHTS: dict[str, Any] = {"pretrained": False, "weights": None}


class Examples(Protocol):
    """The images that are predicted, in their order."""

    @property
    def class_names(self) -> Sequence[str]:
        """Class names of the training data."""

    def to_photo(self, boxes: NDArray[np.float32], row: int) -> NDArray[np.float32]:
        """Boxes `(k, 4)` in what the network sees of an image, in pixels of the image."""


class Task(OptimizedModule):
    """Base class of all tasks: the loss, the metrics and the figures.

    A subclass sets `network` and defines `loss`, `make_metrics` and `measure`. It passes `**options` to its base, and
    so inherits the arguments, also in its signature. All arguments are hyperparameters.

    Args:
        weights: File of initial weights: a state dict (.pth, .safetensors) or the checkpoint of another run.
        optimizer: Name of a timm optimizer: sgd (with Nesterov momentum), momentum (plain SGD), adam, adamw, rmsprop,
            ...
        lr: Learning rate.
        momentum: Momentum, for optimizers that use it.
        weight_decay: Weight decay; not applied to biases and normalization layers.
        optimizer_options: Further arguments of the optimizer, such as `{"alpha": 0.9, "eps": 1e-7}`.
        schedule: Learning rate schedule: none, cosine, linear, or step.
        warmup_epochs: Epochs of linear warmup from near zero.
        min_lr: Learning rate at the end of the cosine or linear schedule.
        decay_epochs: Epochs between two steps of the step schedule.
        decay_rate: Factor of each step of the step schedule.
        compile: Whether to compile the network with torch.compile for whole training batches; `auto` where that is
            expected to save time, which follows from the network and the length of the training.

    Attributes:
        takes: Arguments that are set from the data, if the task has them.
        label_kind: Kind of the labels, as in `DataModule.label_kind`; empty for any.
        monitor: Metric that chooses the best checkpoint unless another is given.
        gives_logits: Whether the network outputs one tensor, `(batch, num_classes)`, or with `gives_masks` maps.
        gives_masks: Whether the network outputs `(batch, num_classes, height, width)`: a class for each pixel.
        activation: What turns the outputs into predictions: `softmax`, `sigmoid`, or `none`.
        counted: Training means that are logged per epoch: the loss, and further sums of `loss`.
        validated: Metrics of the validation.
        averages_loss: Whether `measure` returns the mean loss of each batch.
        shown: Validation metrics in the progress bar and in the curves.
        undefined: Metrics, or patterns of metrics, that may be undefined, and then are not logged.
        keep: Examples of a validation or test that are kept for `figures`.
        extra_needed: Extra of the package that it needs, such as `detection`; empty for none.

    Raises:
        UserError: If that extra is not installed.
    """

    better: ClassVar[Better] = {"loss_step": "min"}
    takes: ClassVar[tuple[str, ...]] = FACTS
    label_kind: ClassVar[str] = ""
    monitor: ClassVar[str] = "val/loss"
    gives_logits: ClassVar[bool] = True
    activation: ClassVar[Literal["softmax", "sigmoid", "none"]] = "softmax"
    gives_masks: ClassVar[bool] = False
    averages_loss: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = ("loss", "acc")
    undefined: ClassVar[tuple[str, ...]] = ()
    keep: ClassVar[Mapping[str, Keep]] = {}
    extra_needed: ClassVar[str] = ""
    pretrained_preprocessing: dict[str, Any] | None = None  # of the images that the weights were trained on
    counted: tuple[str, ...] = ("loss", "acc")
    validated: tuple[str, ...] = ("loss",)
    _shown_every = SHOWN_EVERY
    _whole = 0  # images in a whole training batch of a process, where the network is compiled for that

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Completes the signature by the options of the bases."""
        super().__init_subclass__(**arguments)
        cls.__signature__ = merged_signature(cls)  # type: ignore[attr-defined]

    def __init__(
        self,
        *,
        weights: str | None = None,
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
        compile: bool | Literal["auto"] = "auto",
    ) -> None:
        if self.extra_needed:
            require(self.extra_needed, type(self).__name__)
        super().__init__()
        self.save_hyperparameters(logger=False)  # those of the subclasses, too
        self.hparams.update({name: plain(f"model.{name}", value) for name, value in self.hparams.items()})
        for name in ("weight_decay", "warmup_epochs", "min_lr"):
            check(f"model.{name}", self.hparams[name], least=0)
        check("model.decay_epochs", decay_epochs, above=0)
        self.starting_weights = weights  # none where the weights are those of a checkpoint, whatever its run began with
        self.metrics = nn.ModuleDict({stage: self.make_metrics(stage) for stage in STAGES})
        means = STAGES if self.averages_loss else ()
        self.losses = nn.ModuleDict({stage: MeanMetric(nan_strategy=math.nan) for stage in means})

    @classmethod
    def direction(cls, metric: str) -> Direction | None:
        """Whether lower (`min`) or higher (`max`) values of a metric are better; None if undeclared."""
        return direction_of(metric, declared(cls))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes the checkpoint one that needs no other weights: their file may be gone when it is loaded."""
        super().on_save_checkpoint(checkpoint)
        saved = checkpoint.get("hyper_parameters")
        if saved:
            own = {name: value for name, value in STARTING_WEIGHTS.items() if name in saved}
            checkpoint["hyper_parameters"] = {**saved, **own}

    # what a task gives

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a training batch, and sums over its examples, whose means over the epoch are logged."""
        raise NotImplementedError

    def make_metrics(self, stage: str) -> Metric | MetricCollection:
        """Makes the metrics of `val` or `test`; their `compute` returns values by name."""
        raise NotImplementedError

    def measure(self, batch: Any, metrics: Any) -> dict[str, Any]:
        """Adds a batch to the metrics.

        Args:
            batch: The batch.
            metrics: What `make_metrics` returned for the stage.

        Returns:
            `loss`, the mean of the batch, where the task has one; and by name what figures may keep of it, a row for
            each example: tensors or lists.
        """
        raise NotImplementedError

    def results(self, stage: str) -> dict[str, Tensor]:
        """Metrics of a whole part by name, each a scalar, equal on all processes."""
        means = {"loss": self.losses[stage].compute()} if self.averages_loss else {}  # type: ignore[operator]
        return {**means, **self.metrics[stage].compute()}  # type: ignore[operator]

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Figures of a validation or test, by name.

        Args:
            kept: For each entry of `keep`, by name, the rows of what `measure` returned, with the `images`.
            data: The data module, for the names of the classes and the scaling of the images; None without one.
            title: What was measured.
        """
        yield from ()

    def tables(self, kept: Mapping[str, Mapping[str, Any]], data: Any) -> Iterator[tuple[str, Table]]:
        """Tables of a validation or test, by name; they are written as CSV.

        Args:
            kept: As of `figures`.
            data: The data module, for the names of the classes; None without one.
        """
        yield from ()

    # what all tasks do

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """Names of the metrics that a stage logs, without its prefix; known before training."""
        return (*self.counted, "loss_step") if stage == "train" else self.validated

    @classmethod
    def check_data(cls, data: type) -> None:
        """Refuses data with labels of another kind.

        Args:
            data: The class of the data.

        Raises:
            UserError: If the task does not learn from such data.
        """
        given = getattr(data, "label_kind", "")
        if cls.label_kind and given and given != cls.label_kind:
            raise UserError(
                f"{cls.__name__} requires {cls.label_kind}, but {data.__name__} has {given}: add `model` "
                f"{getattr(data, 'default_model', 'NAME')}, or take other `data`"
            )

    def setup(self, stage: str) -> None:
        """Checks that the data fit, and compiles the network if `compile` is set.

        Raises:
            UserError: If the task does not learn from such data.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage != "predict" and data is not None:
            self.check_data(type(data))
        if stage != "fit":
            return
        if self.trainer.world_size > 1:  # the first process has chosen
            self.compute_as(**self.trainer.strategy.broadcast({name: self.hparams[name] for name in self.computing()}))
        if self.hparams["compile"] is True:
            self._whole = getattr(data, "batch_size", 0) // self.trainer.world_size
            self.compiled().compile(dynamic=False if self._whole else None)

    def computing(self) -> tuple[str, ...]:
        """The hyperparameters that say how the network is computed: those of them that it has."""
        return tuple(name for name in COMPUTING if name in self.hparams)

    def compute_as(self, **chosen: bool) -> None:
        """Sets how the network is computed, before the training.

        Args:
            chosen: Hyperparameters, of `computing()`.
        """
        self.hparams.update(chosen)

    def exported(self) -> tuple[nn.Module, dict[str, str]]:
        """What `export` writes, which returns one tensor, and what its file says of that.

        Raises:
            UserError: If the network has no such output.
        """
        if not self.gives_logits:
            raise UserError(
                f"export requires a network with one tensor of logits, unlike that of {type(self).__name__}: use "
                "`predict()`"
            )
        return self, {"activation": self.activation, "labels": self.label_kind}

    def compiled(self) -> nn.Module:
        """Part of the network that `compile` compiles."""
        return self.network

    def as_compiled(self, images: Tensor) -> AbstractContextManager[Any]:
        """The context in which a batch goes through the network: only whole batches of the training are compiled.

        Args:
            images: The batch.
        """
        if not self._whole or (self.training and len(images) == self._whole):
            return nullcontext()
        return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]

    def on_train_start(self) -> None:
        """Looks how often the progress bar is drawn."""
        super().on_train_start()
        bar = self.trainer.progress_bar_callback
        self._shown_every = max(SHOWN_EVERY, getattr(bar, "refresh_rate", SHOWN_EVERY))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Args:
            batch: The batch; its first part has a row for each example.
            batch_idx: Number of the batch in its epoch.
        """
        loss, sums = self.loss(batch)
        self.count(loss, sums, len(batch[0]), batch_idx)
        return loss

    def count(self, loss: Tensor, sums: dict[str, Tensor], examples: int, batch_idx: int) -> None:
        """Adds a training batch to the sums of its epoch, and logs its loss periodically.

        Args:
            loss: Mean loss of the batch.
            sums: Other sums over its examples.
            examples: How many these are.
            batch_idx: Number of the batch in its epoch.
        """
        self.add_up({"loss": loss.detach() * examples, **sums}, examples)
        if batch_idx % self._shown_every == 0 or self._is_logged(batch_idx):
            self.log("train/loss_step", loss, on_step=True, on_epoch=False, prog_bar=True)

    def _is_logged(self, batch_idx: int) -> bool:
        """Whether loggers or the end of an epoch show the step."""
        trainer: Any = self.trainer
        is_last = batch_idx + 1 == trainer.num_training_batches
        return is_last or bool((self.global_step + 1) % trainer.log_every_n_steps == 0)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Evaluates a validation batch; returns the result of `measure` without the mean loss."""
        return self._measured(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Evaluates a test batch; returns the result of `measure` without the mean loss."""
        return self._measured(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the whole validation part."""
        self._log_results("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the whole test part."""
        self._log_results("test")

    def _measured(self, batch: Any, stage: str) -> dict[str, Any]:
        outputs = self.measure(batch, self.metrics[stage])
        if self.averages_loss:
            self.losses[stage].update(outputs.pop("loss"), weight=len(batch[0]))  # type: ignore[operator]
        return outputs

    def _log_results(self, stage: str) -> None:
        # the values are equal on all processes already; sync_dist only says so to Lightning
        for name, value in self.results(stage).items():
            optional = any(fnmatchcase(name, pattern) for pattern in self.undefined)
            if optional and value.isnan() and not self.trainer.sanity_checking:
                continue  # the sanity check only shows which metrics there are
            shown = stage == "val" and name in self.shown
            self.log(f"{stage}/{name}", value.float(), prog_bar=shown, sync_dist=True)
        for measured in (self.metrics, self.losses):
            if stage in measured:
                measured[stage].reset()  # type: ignore[operator]


class NetworkTask(Task):
    """Base class of tasks with a timm-style `network` that maps inputs to `(batch, num_classes)`.

    A subclass calls `make_network`.

    Args:
        architecture: Name of the network: one of ours, any timm model, or your own as `my_file.my_network`.
        num_classes: Number of classes, the size of the output; taken from the data.
        in_channels: Channels of the images; taken from the data.
        architecture_options: Further arguments of the network, such as `{"drop_rate": 0.3}`.
    """

    better: ClassVar[Better] = {"acc": "max"}
    memory_format = torch.contiguous_format

    def __init__(
        self,
        architecture: str,
        *,
        num_classes: int = 10,
        in_channels: int = 1,
        architecture_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)

    def make_network(self, size: int, pretrained: bool = False, extra: Mapping[str, Any] | None = None) -> None:
        """Makes the network, and stores the preprocessing of its pre-trained weights, if any.

        Args:
            size: Side of the images in pixels, or length of the sequences.
            pretrained: Whether to start from the weights that timm knows of, unless `weights` names others.
            extra: Arguments of the network beside `architecture_options`, which win.

        Raises:
            UserError: If the network or the weights can't be had, or don't fit the images.
        """
        hparams = self.hparams
        architecture, channels = hparams["architecture"], hparams["in_channels"]
        read = read_weights(self.starting_weights) if self.starting_weights is not None else None
        options = {**(extra or {}), **(hparams["architecture_options"] or {})}
        self.network = create_network(
            architecture,
            hparams["num_classes"],
            channels,
            size,
            pretrained and not read,
            options,
            read,
            maps=self.gives_masks,
        )
        if pretrained or read:
            self.pretrained_preprocessing = pretrained_preprocessing(self.network, channels, read)
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.example_input_array = torch.zeros(1, *input_shape(architecture, channels, size))

    def forward(self, images: Tensor) -> Any:
        """Outputs `(batch, num_classes)` for images `(batch, in_channels, size, size)`."""
        with self.as_compiled(images):
            return self.network(images.contiguous(memory_format=self.memory_format))
