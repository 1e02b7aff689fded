"""Classification of images with any registered network."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.modules.network import create_network

Batch = tuple[Tensor, Tensor]
OPTIMIZATION = ("optimizer", "lr", "momentum", "weight_decay", "optimizer_options")
SCHEDULE = ("schedule", "warmup_epochs", "min_lr", "decay_epochs", "decay_rate")


class ImageClassifier(LightningModule):
    """A network that gives each image one of several classes, trained on the cross-entropy.

    Measured in validation and test: `loss` (cross-entropy without smoothing), `acc`, `f1` (macro mean over the
    classes), `ece` (expected calibration error, 15 bins; Guo et al. 2017), `top5` where there are more than ten
    classes, and in the test `acc_<class>` for each class. All are exact over the whole set, on any number of processes.

    Args:
        architecture: Name of the network: ours, any of timm, or `my_file.my_network` of your own.
        num_classes: Number of classes; taken from the data.
        in_channels: Channels of the images; taken from the data.
        image_size: Side of the images in pixels; taken from the data.
        pretrained: Whether to start from the weights that timm knows of (needs a network connection).
        architecture_options: Further arguments of the network, such as `{"drop_rate": 0.3}`.
        optimizer: Name of an optimiser in timm: sgd (Nesterov), momentum (SGD), adam, adamw, rmsprop, ...
        lr: Learning rate.
        momentum: Momentum, for optimisers that have one.
        weight_decay: Weight decay; biases and normalisation layers are left out.
        optimizer_options: Further arguments of the optimiser, such as `{"alpha": 0.9, "eps": 1e-7}`.
        schedule: Course of the learning rate over the run: none, cosine, linear, or step.
        warmup_epochs: Epochs over which the learning rate rises from near zero.
        min_lr: Learning rate at the end of the cosine or linear schedule.
        decay_epochs: Epochs between two steps of the step schedule.
        decay_rate: Factor of each step of the step schedule.
        label_smoothing: Share of the probability spread over all classes in the training loss.
        compile: Whether to compile the network with torch.compile.
        channels_last: Whether to keep images in memory with the channels last, faster for many convolutions.

    Raises:
        UserError: If the network does not exist or the images don't fit it.
    """

    def __init__(
        self,
        architecture: str = "lenet5",
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        pretrained: bool = False,
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
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.network = create_network(
            architecture, num_classes, in_channels, image_size, pretrained, architecture_options
        )
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        self.example_input_array = torch.zeros(1, in_channels, image_size, image_size)
        self.label_smoothing = label_smoothing
        metrics = {
            "acc": MulticlassAccuracy(num_classes, average="micro"),
            "f1": MulticlassF1Score(num_classes, average="macro"),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15),
        }
        if num_classes > 10:
            metrics["top5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro")
        collection = MetricCollection(metrics)  # type: ignore[arg-type]
        self.metrics = nn.ModuleDict({stage: collection.clone(prefix=f"{stage}/") for stage in ("val", "test")})
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})
        self.class_accuracy = MulticlassAccuracy(num_classes, average=None)
        self._base_lr = lr
        self._sums, self._images = torch.zeros(2), 0

    def setup(self, stage: str) -> None:
        """Compiles the network where that is wanted."""
        if self.hparams["compile"] and stage == "fit":
            self.network.compile()

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, num_classes)` of images `(batch, in_channels, image_size, image_size)`."""
        logits: Tensor = self.network(images.contiguous(memory_format=self.memory_format))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch: cross-entropy, with label smoothing."""
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        # summed here: three calls of Lightning's log for each step would take a tenth of a small network's epoch
        with torch.no_grad():
            correct = (logits.argmax(1) == labels).sum()
            self._sums = self._sums.to(loss.device) + torch.stack(
                [loss.detach().float() * len(labels), correct.float()]
            )
        self._images += len(labels)
        if batch_idx % 10 == 0 or (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss_step", loss, on_step=True, on_epoch=False, prog_bar=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Starts the sums of the epoch."""
        self._sums, self._images = torch.zeros(2), 0

    def on_train_epoch_end(self) -> None:
        """Logs the mean loss and the accuracy of the epoch, over all processes."""
        for name, total in zip(("loss", "acc"), self._sums, strict=True):
            self.log(f"train/{name}", total / max(1, self._images), batch_size=max(1, self._images), sync_dist=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the validation part; see `_measure`."""
        return self._measure(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Measures a batch of the test part; see `_measure`."""
        outputs = self._measure(batch, "test")
        self.class_accuracy.update(outputs["logits"], outputs["labels"])
        return outputs

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities `(batch, num_classes)`."""
        logits: Tensor = self(batch[0])
        return logits.float().softmax(1)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of the whole validation part."""
        self._log_metrics("val", prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Logs the metrics of the whole test part, and the accuracy of each class."""
        self._log_metrics("test")
        names = getattr(self.trainer.datamodule, "class_names", None) or range(self.hparams["num_classes"])  # type: ignore[attr-defined]
        accuracies = self.class_accuracy.compute()
        values = {f"test/acc_{name}": value for name, value in zip(names, accuracies, strict=True)}
        self.log_dict(values, sync_dist=True)
        self.class_accuracy.reset()

    def configure_optimizers(self) -> Any:
        """The optimiser and the schedule, by name.

        Raises:
            UserError: If the optimiser is unknown or does not take its options, or the schedule has no end.
        """
        optimizer = self._optimizer(self.hparams)
        hparams = self.hparams
        if hparams["schedule"] == "none" and not hparams["warmup_epochs"]:
            return optimizer
        updates = self.trainer.estimated_stepping_batches
        if math.isinf(updates):
            raise UserError("a schedule needs to know its end: set --trainer.max_epochs or --trainer.max_steps")
        updates_per_epoch = max(1, math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches))
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched={"none": "step", "linear": "poly"}.get(hparams["schedule"], hparams["schedule"]),
            num_epochs=max(1, updates) / updates_per_epoch,  # max_steps may end within one
            # "none" is a step schedule whose first step never comes; "linear" is a polynomial of power 1
            decay_epochs=10**9 if hparams["schedule"] == "none" else hparams["decay_epochs"],
            decay_rate=1.0 if hparams["schedule"] == "linear" else hparams["decay_rate"],
            min_lr=hparams["min_lr"],
            warmup_lr=hparams["lr"] / 100,
            warmup_epochs=hparams["warmup_epochs"],
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Moves a schedule of timm, or that of the learning rate finder, on by one update."""
        if isinstance(scheduler, Scheduler):
            scheduler.step_update(num_updates=self.global_step, metric=metric)
        else:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_start(self) -> None:
        """Brings the schedule to where the run is, at the learning rate that the learning rate finder may have set."""
        found, self._base_lr = self.hparams["lr"] / (self._base_lr or 1), self.hparams["lr"]
        for config in self.trainer.lr_scheduler_configs:
            scheduler: Any = config.scheduler
            if isinstance(config.scheduler, Scheduler):
                scheduler.base_values = [value * found for value in scheduler.base_values]
                scheduler.warmup_steps = [value * found for value in scheduler.warmup_steps]
                scheduler.warmup_lr_init *= found
                scheduler.step_update(self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets settings that differ from the checkpoint's win over those in the checkpoint.

        Lightning would bring back the checkpoint's learning rate together with the optimiser's state, and a schedule
        that ends where the earlier run was to end. The schedule follows from the settings and the step instead.
        """
        if "optimizer_states" not in checkpoint or self._trainer is None:
            return
        checkpoint["lr_schedulers"] = []
        saved = checkpoint.get("hyper_parameters", {})
        changed = {name for name in (*OPTIMIZATION, *SCHEDULE) if saved.get(name) != self.hparams[name]}
        if not changed:
            return
        fresh, state = self._optimizer(self.hparams), checkpoint["optimizer_states"][0]
        state["param_groups"] = fresh.state_dict()["param_groups"]
        if "optimizer" in changed:
            state["state"] = {}
        else:  # another weight decay numbers the parameters anew
            before, after = _parameters(self._optimizer({**self.hparams, **saved})), _parameters(fresh)
            numbers = {id(parameter): number for number, parameter in enumerate(after)}
            state["state"] = {numbers[id(before[number])]: moments for number, moments in state["state"].items()}

    def _optimizer(self, hparams: Mapping[str, Any]) -> Optimizer:
        name = hparams["optimizer"]
        if name not in list_optimizers():
            raise UserError(f"unknown --model.optimizer {name!r}{did_you_mean(name, list_optimizers())}")
        if get_optimizer_info(name).second_order:
            raise UserError(f"--model.optimizer {name} needs second derivatives, which we don't compute: try adamw")
        if name == "sgd" and hparams["momentum"] == 0:
            name = "momentum"  # Nesterov's form is not defined without a momentum
        try:
            optimizer: Optimizer = create_optimizer_v2(
                self.network,
                opt=name,
                lr=hparams["lr"],
                momentum=hparams["momentum"],
                weight_decay=hparams["weight_decay"],
                **(hparams["optimizer_options"] or {}),
            )
        except (TypeError, ValueError, AssertionError, ImportError) as error:
            raise UserError(f"--model.optimizer {name} does not take these settings ({error})") from None
        return optimizer

    def _measure(self, batch: Batch, stage: str) -> dict[str, Tensor]:
        """Adds a batch to the metrics; returns its `logits` `(batch, num_classes)` and `labels` `(batch,)`."""
        images, labels = batch
        logits = self(images).float()
        self.losses[stage].update(F.cross_entropy(logits, labels), weight=len(labels))  # type: ignore[operator]
        self.metrics[stage].update(logits, labels)  # type: ignore[operator]
        return {"logits": logits, "labels": labels}

    def _log_metrics(self, stage: str, prog_bar: bool = False) -> None:
        values: dict[str, Tensor] = self.metrics[stage].compute()  # type: ignore[operator]
        loss: Tensor = self.losses[stage].compute()  # type: ignore[operator]
        # the values are equal on all processes already; sync_dist only says so to Lightning
        self.log(f"{stage}/loss", loss, prog_bar=prog_bar, sync_dist=True)
        for name, value in values.items():
            self.log(name, value, prog_bar=prog_bar and name.endswith("/acc"), sync_dist=True)
        self.metrics[stage].reset()  # type: ignore[operator]
        self.losses[stage].reset()  # type: ignore[operator]


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """In the order in which the optimiser's state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
