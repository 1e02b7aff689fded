"""Whether a stock will rise: classification of windows of monthly returns."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import BinaryAUROC

from lightning_cnn.evaluation.confidence import calibration_error
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.evaluation.returns.ranking import ranking_metrics
from lightning_cnn.modules.return_module import ReturnModule

THRESHOLDS = 200  # of the accumulated AUC, as in Keras


class ReturnClassifier(ReturnModule):
    """A network that gives each stock and month the probability of a positive return, trained on the cross-entropy.

    Measured in validation and test, each epoch anew: `loss` (binary cross-entropy), `acc` and beside it `up_rate`, the
    share of positive returns, which is what "always up" reaches; `auc`, and `auc_month`, the mean of the AUC within
    each month, which knowing good months from bad ones does not help; `ic`, the mean over the months of the rank
    correlation of prediction and return, with its t-statistic `ic_t` and the share of months above zero `ic_positive`;
    `ece` (expected calibration error, 15 bins; Guo et al. 2017). All are exact over the whole part, on any number of
    processes.

    Args:
        architecture: Name of the network: `returns_cnn`, `returns_cnn_split`, `returns_tcn`, `returns_resnet`,
            `returns_ffnn`; for pictures `returns_picture` or any of timm; or `my_file.my_network` of your own.
        num_classes: Size of the output, 1; taken from the data.
        in_channels: Series in a window; taken from the data.
        window_length: Length of a window, or side of a picture; taken from the data.
        lags: How many values of a window are past months; taken from the data.
        weights: File of weights to start from: a state dict (.pth, .safetensors), or a checkpoint of another run.
        architecture_options: Further arguments of the network, such as `{"head_relu": true}`.
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
        steps_per_call: Steps of the optimizer in one call of Lightning's: the same batches and steps in less time, on
            one process. Callbacks and loggers then see each call, not each step.
        accumulate_auc: Flaw: log `val/auc_accumulated`, too, the AUC over all that was seen so far, of training and
            validation and all epochs, as an AUC of Keras that nobody resets.
        compile: Whether to compile the network with torch.compile.

    Raises:
        UserError: If the network does not exist, or the data don't fit it.
    """

    better: ClassVar[Better] = {"ece": "min", "auc_accumulated": "max"}

    def __init__(
        self,
        architecture: str = "returns_cnn",
        num_classes: int = 1,
        in_channels: int = 1,
        window_length: int = 36,
        lags: int = 24,
        weights: str | None = None,
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
        steps_per_call: int = 1,
        accumulate_auc: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.make()
        if accumulate_auc:
            self.accumulated = BinaryAUROC(thresholds=THRESHOLDS)
            self.accumulated.persistent(True)  # a resumed run goes on with it

    def logged(self, stage: Literal["train", "val"]) -> tuple[str, ...]:
        """The metrics that are logged in a stage, without its name in front."""
        if stage == "train":
            return super().logged(stage)
        accumulated = ("auc_accumulated",) if self.hparams["accumulate_auc"] else ()
        return (*super().logged(stage), "acc", "ece", *accumulated)

    def loss(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> Tensor:
        """The mean binary cross-entropy; a return of zero is none that is positive."""
        return F.binary_cross_entropy_with_logits(scores, (outcomes > 0).to(scores.dtype))

    def predictions(self, scores: Tensor) -> Tensor:
        """The probability of a positive return, `(n,)`."""
        return scores.sigmoid()

    def measure(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
        """The metrics of a whole part, by name; all `(n,)`."""
        up = outcomes > 0
        return {
            "acc": self.right(scores, outcomes).double().mean(),
            "up_rate": up.double().mean(),
            "ece": calibration_error(scores.sigmoid(), up),
            **ranking_metrics(scores, outcomes, months),
        }

    def learned(self, scores: Tensor, outcomes: Tensor) -> None:
        """Adds training batches to the accumulated AUC."""
        if self.hparams["accumulate_auc"]:
            self.accumulated.update(scores.float().sigmoid(), outcomes > 0)

    def _measure(self, batch: tuple[Tensor, Tensor, Tensor], stage: str) -> dict[str, Tensor]:
        """Adds a batch to what is measured; returns its `probabilities`, too."""
        outputs = super()._measure(batch, stage)
        outputs["probabilities"] = self.predictions(outputs["scores"])
        if self.hparams["accumulate_auc"] and stage == "val" and not self.trainer.sanity_checking:
            self.accumulated.update(outputs["probabilities"], outputs["outcomes"] > 0)
        return outputs

    def _log_metrics(self, stage: str) -> None:
        super()._log_metrics(stage)
        if self.hparams["accumulate_auc"] and stage == "val" and not self.trainer.sanity_checking:
            self.log("val/auc_accumulated", torch.as_tensor(self.accumulated.compute()).float(), sync_dist=True)
