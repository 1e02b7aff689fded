"""Whether a stock will rise: classification of windows of monthly returns."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import BinaryAUROC

from lightning_cnn.evaluation.confidence import calibration_error
from lightning_cnn.evaluation.directions import Better
from lightning_cnn.evaluation.returns.ranking import ranking_metrics
from lightning_cnn.modules.return_module import Batch, ReturnModule

THRESHOLDS = 200  # of the accumulated AUC, as in Keras


class ReturnClassifier(ReturnModule):
    """Predicts the probability of a positive return for each stock and month, with cross-entropy loss.

    Measured in validation and test, each epoch anew: `loss` (binary cross-entropy), `acc` and beside it `up_rate`, the
    share of positive returns, which is what "always up" reaches; `auc`, and `auc_month`, the mean of the AUC within
    each month, which knowing good months from bad ones does not help; `ic`, the mean over the months of the rank
    correlation of prediction and return, with its t-statistic `ic_t` and the share of months above zero `ic_positive`;
    `ece` (expected calibration error, 15 bins; Guo et al. 2017). All are exact over the whole part, on any number of
    processes.

    Args:
        accumulate_auc: Flaw: also log `val/auc_accumulated`, the AUC over all predictions so far, of training and
            validation and all epochs, like a Keras AUC that is never reset.

    Raises:
        UserError: If the network does not exist, or the data don't fit it.
    """

    better: ClassVar[Better] = {"ece": "min", "auc_accumulated": "max"}
    gives = "probability"
    validated = (*ReturnModule.validated, "acc", "ece")

    def __init__(self, architecture: str = "returns_cnn", *, accumulate_auc: bool = False, **options: Any) -> None:
        super().__init__(architecture, **options)
        if accumulate_auc:
            self.validated += ("auc_accumulated",)
            self.accumulated = BinaryAUROC(thresholds=THRESHOLDS)
            self.accumulated.persistent(True)  # a resumed run goes on with it

    def loss_of(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> Tensor:
        """Mean binary cross-entropy; a return of zero counts as not positive."""
        return F.binary_cross_entropy_with_logits(scores, (outcomes > 0).to(scores.dtype))

    def predictions(self, scores: Tensor) -> Tensor:
        """The probability of a positive return, `(n,)`."""
        return scores.sigmoid()

    def metrics_of(self, scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
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

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to what is measured; returns its `probabilities`, too."""
        outputs = super().measure(batch, metrics)
        outputs["probabilities"] = self.predictions(outputs["scores"])
        if metrics is self.metrics["val"] and self._accumulates("val"):
            self.accumulated.update(outputs["probabilities"], outputs["outcomes"] > 0)
        return outputs

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, each without dimensions."""
        values = super().results(stage)
        if self._accumulates(stage):
            values["auc_accumulated"] = torch.as_tensor(self.accumulated.compute())
        return values

    def _accumulates(self, stage: str) -> bool:
        return self.hparams["accumulate_auc"] and stage == "val" and not self.trainer.sanity_checking
