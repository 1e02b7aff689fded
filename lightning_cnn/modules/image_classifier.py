"""Classification of images with any registered network."""

import math
from typing import Any, ClassVar, Literal

from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.confidence import CalibrationError
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.modules.fine_tuning import FineTuning, divide
from lightning_cnn.modules.network_module import NetworkModule

Batch = tuple[Tensor, Tensor]


class ImageClassifier(NetworkModule):
    """A network that gives each image one of several classes, trained on the cross-entropy.

    Measured in validation and test: `loss` (cross-entropy without smoothing), `acc`, `f1` (macro mean), `ece` (expected
    calibration error, 15 bins; Guo et al. 2017), `top5` where there are more than ten classes, and in the test
    `acc_<class>` for each class. `f1` is the mean over the classes that occur in the labels, as of scikit-learn's
    `f1_score(y, p, labels=np.unique(y), average="macro")`; a class that does not occur has no `acc_<class>`. All are
    exact over the whole set, on any number of processes.

    Args:
        architecture: Name of the network: ours, any of timm, or `my_file.my_network` of your own.
        num_classes: Number of classes; taken from the data.
        in_channels: Channels of the images; taken from the data.
        image_size: Side of the images in pixels; taken from the data.
        pretrained: Whether to start from the weights that timm knows of (needs a network connection).
        weights: File of weights to start from: a state dict (.pth, .safetensors), or a checkpoint of another run.
        transfer: What learns of a network with pre-trained weights: `full` all of it; `frozen` its head alone, on
            frozen features; `staged` first the head, then the layers behind a named one, too.
        unfreeze_from: With `staged` the first layer that is unfrozen, such as `layer4`; default all layers.
        unfreeze_epoch: With `staged` the first epoch, counted from 0, in which they learn.
        unfreeze_lr: With `staged` their learning rate; default a tenth of `lr`.
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
        label_smoothing: Share of the probability spread over all classes in the training loss.
        auxiliary_weight: Weight of the loss of each auxiliary head, for networks that have such (GoogLeNet:
            Szegedy et al. 2015, section 5).
        flip_average: Whether validation, test and prediction average each image's logits with its mirror image's.
        compile: Whether to compile the network with torch.compile.
        channels_last: Whether to keep images in memory with the channels last, faster for many convolutions.

    Raises:
        UserError: If the network does not exist, the images or the weights don't fit it, or the options of the
            transfer contradict each other.
    """

    better: ClassVar[Better] = {"f1": "max", "ece": "min", "top5": "max", "acc_*": "max"}

    def __init__(
        self,
        architecture: str = "lenet5",
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        pretrained: bool = False,
        weights: str | None = None,
        transfer: Literal["full", "frozen", "staged"] = "full",
        unfreeze_from: str | None = None,
        unfreeze_epoch: int = 3,
        unfreeze_lr: float | None = None,
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
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.3,
        flip_average: bool = False,
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.make_network(
            architecture, num_classes, in_channels, image_size, pretrained, weights, architecture_options, channels_last
        )
        if unfreeze_from is not None and transfer != "staged":
            raise UserError(f"--model.unfreeze_from {unfreeze_from} goes with --model.transfer staged only: add that")
        later = (unfreeze_from or "") if transfer == "staged" else None
        self._fine_tuning = FineTuning(later, unfreeze_epoch) if transfer != "full" else None
        self._parts = divide(self.network, later) if transfer != "full" else None
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        self.flip_average = flip_average
        stages = ("val", "test")
        # of each class: true and false positives, true and false negatives, and how often it occurs
        self.counts = nn.ModuleDict({stage: MulticlassStatScores(num_classes, average=None) for stage in stages})
        self.calibration = nn.ModuleDict({stage: CalibrationError() for stage in stages})
        self.losses = nn.ModuleDict({stage: MeanMetric(nan_strategy=math.nan) for stage in stages})
        several = stages if num_classes > 10 else ()
        self.top5 = nn.ModuleDict({s: MulticlassAccuracy(num_classes, top_k=5, average="micro") for s in several})

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """The metrics that are logged in a stage, without its name in front."""
        if stage == "train":
            return super().logged(stage)
        top = ("top5",) if self.hparams["num_classes"] > 10 else ()
        return ("loss", "acc", "f1", "ece", *top)

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
                f"--model.transfer {self.hparams['transfer']} freezes layers, but they have random weights: "
                "add --model.pretrained true or --model.weights FILE"
            )
        if begin and sample and fresh:
            begin(sample(5000).to(self.device))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes)` of images `(batch, in_channels, image_size, image_size)`.

        In training a network with auxiliary heads gives a tuple: its logits, then those of each auxiliary head.
        """
        images = images.contiguous(memory_format=self.memory_format)
        logits: Tensor = self.network(images)
        if self.flip_average and not self.training:
            logits = (logits + self.network(images.flip(-1))) / 2
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch: cross-entropy, with label smoothing.

        Args:
            batch: Images, and labels: classes `(batch,)` or, of mixed images, probabilities `(batch, num_classes)`.
            batch_idx: Number of the batch in its epoch.
        """
        images, labels = batch
        outputs = self(images)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        for others in auxiliary:
            loss = loss + self.auxiliary_weight * F.cross_entropy(others, labels, label_smoothing=self.label_smoothing)
        if labels.ndim == 2:
            labels = labels.argmax(1)
        self.count(loss, logits.argmax(1) == labels, batch_idx)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the validation part; see `_measure`."""
        return self._measure(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the test part; see `_measure`."""
        return self._measure(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities `(batch, num_classes)`."""
        logits: Tensor = self(batch[0])
        return logits.float().softmax(1)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the whole validation part."""
        self._log_metrics("val", prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the whole test part, and the accuracy of each class that occurs in it."""
        counts = self.counts["test"].compute().tolist()  # type: ignore[operator]
        self._log_metrics("test")
        names = getattr(self.trainer.datamodule, "class_names", None) or range(self.hparams["num_classes"])  # type: ignore[attr-defined]
        rows = zip(names, counts, strict=True)
        self.log_dict({f"test/acc_{name}": row[0] / row[-1] for name, row in rows if row[-1]}, sync_dist=True)

    def _measure(self, batch: Batch, stage: str) -> dict[str, Tensor]:
        """Adds a batch to the metrics; returns its `logits` `(batch, num_classes)` and `labels` `(batch,)`."""
        images, labels = batch
        logits = self(images).float()
        self.losses[stage].update(F.cross_entropy(logits, labels), weight=len(labels))  # type: ignore[operator]
        answers = logits.argmax(1)
        self.counts[stage].update(answers, labels)  # type: ignore[operator]
        self.calibration[stage].update(logits.softmax(1).amax(1), answers == labels)  # type: ignore[operator]
        if self.top5:
            self.top5[stage].update(logits, labels)  # type: ignore[operator]
        return {"logits": logits, "labels": labels}

    def _log_metrics(self, stage: str, prog_bar: bool = False) -> None:
        right, wrong, _, missed, occurs = self.counts[stage].compute().unbind(1)  # type: ignore[operator]
        f1 = 2 * right / (2 * right + wrong + missed)
        values = {
            "loss": self.losses[stage].compute(),  # type: ignore[operator]
            "acc": right.sum() / occurs.sum(),
            "f1": f1[occurs > 0].mean(),
            "ece": self.calibration[stage].compute(),  # type: ignore[operator]
        }
        metrics = [self.losses[stage], self.counts[stage], self.calibration[stage]]
        if self.top5:
            values["top5"] = self.top5[stage].compute()  # type: ignore[operator]
            metrics.append(self.top5[stage])
        # the values are equal on all processes already; sync_dist only says so to Lightning
        for name, value in values.items():
            self.log(f"{stage}/{name}", value, prog_bar=prog_bar and name in ("loss", "acc"), sync_dist=True)
        for metric in metrics:
            metric.reset()  # type: ignore[operator]
