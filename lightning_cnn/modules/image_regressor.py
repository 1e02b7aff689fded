"""Regression from images: one or several numbers for each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.evaluation.directions import Better
from lightning_cnn.figures.collected import IMAGES, All, Columns, Keep, Table, Worst
from lightning_cnn.modules.base import Examples
from lightning_cnn.modules.image_task import Batch, ImageTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}


class RegressionMetrics(Columns):
    """Errors of each number, exact over the whole part.

    A batch of `update` is the predictions and the true values, float `(n, targets)` each.
    """

    def __init__(self) -> None:
        super().__init__("predictions", "labels")

    def compute(self) -> dict[str, Tensor]:
        """Of each number, float64 `(targets,)`: `mae`, `rmse`, and `r2`, NaN where the true values are all equal."""
        predictions, labels = (part.double() for part in super().compute().values())
        errors = predictions - labels
        spread = (labels - labels.mean(0)).square().sum(0)
        r2 = torch.where(spread > 0, 1 - errors.square().sum(0) / spread, torch.nan)
        return {"mae": errors.abs().mean(0), "rmse": errors.square().mean(0).sqrt(), "r2": r2}


class ImageRegressor(ImageTask):
    """Regression of one or several numbers from images.

    Labels are float32 `(batch, num_classes)`. The network learns them standardized by mean and standard deviation of
    the training part; outputs and metrics are in the units of the data. Measured in validation and test: `loss` (of
    the standardized numbers), `mae` (mean absolute error), `rmse` (root mean squared error) and `r2` (coefficient of
    determination), each the mean over the numbers, as of scikit-learn; and in the test of several numbers also
    `mae_<name>`, `rmse_<name>` and `r2_<name>` of each. Where a number is the same for all images, `r2` is undefined.

    Args:
        architecture: Name of the network: one of ours, any timm model, or your own as `my_file.my_network`.
        num_classes: Number of numbers, the size of the output; taken from the data.
        loss: `mse`, the squared error; `mae`, the absolute error; `huber`, squared up to one standard deviation and
            absolute beyond (Huber 1964).
    """

    better: ClassVar[Better] = {
        **dict.fromkeys(("mae", "rmse", "mae_*", "rmse_*"), "min"),
        **dict.fromkeys(("r2", "r2_*"), "max"),
    }
    label_kind = "numbers"
    activation = "none"
    counted = ("loss", "mae")
    validated = ("loss", "mae", "rmse", "r2")
    shown = ("loss", "mae")
    undefined = ("r2", "r2_*")
    keep: ClassVar[Mapping[str, Keep]] = {"answers": All("predictions", "labels"), "worst": Worst(25, by="losses")}
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self, architecture: str = "lenet5", *, loss: Literal["mse", "mae", "huber"] = "mse", **options: Any
    ) -> None:
        super().__init__(architecture, **options)
        self.loss_of = LOSSES[loss]
        self.register_buffer("target_mean", torch.zeros(self.hparams["num_classes"]))
        self.register_buffer("target_std", torch.ones(self.hparams["num_classes"]))

    def forward(self, images: Tensor) -> Tensor:
        """Numbers `(batch, num_classes)` in the units of the data, for images `(batch, in_channels, size, size)`."""
        outputs: Tensor = super().forward(images)
        return outputs * self.target_std + self.target_mean

    def on_fit_start(self) -> None:
        """Measures mean and standard deviation of the training labels, unless the run is resumed."""
        super().on_fit_start()
        scale = getattr(self.trainer.datamodule, "label_scale", None)  # type: ignore[attr-defined]
        if scale is not None and self.trainer.ckpt_path is None:
            mean, std = scale()
            self.target_mean.copy_(mean)
            self.target_std.copy_(torch.where(std > 0, std, 1))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of a training batch, and the absolute errors of its images, summed."""
        predictions, labels = self(batch[0]), batch[1]
        return self._losses(predictions, labels).mean(), {"mae": (predictions - labels).abs().mean(1).sum().detach()}

    def make_metrics(self, stage: str) -> RegressionMetrics:
        """Makes the metrics of `val` or `test`."""
        return RegressionMetrics()

    def measure(self, batch: Batch, metrics: Any) -> dict[str, Tensor]:
        """Adds a batch to the metrics; returns its `loss`, and of each image `losses`, `predictions` and `labels`."""
        predictions, labels = self(batch[0]).float(), batch[1]
        metrics.update(predictions, labels)
        losses = self._losses(predictions, labels).mean(1)
        return {"loss": losses.mean(), "losses": losses, "predictions": predictions, "labels": labels}

    def results(self, stage: str) -> dict[str, Tensor]:
        """The metrics of a whole part by name, in the test of several numbers with those of each."""
        found = super().results(stage)
        each = {name: found[name] for name in ("mae", "rmse", "r2")}
        found |= {name: values.mean() for name, values in each.items()}
        names = self.names_of(self.trainer.datamodule)  # type: ignore[attr-defined]
        if stage == "test" and len(names) > 1:
            for name, values in each.items():
                found |= {f"{name}_{target}": value for target, value in zip(names, values, strict=True)}
        return found

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Numbers `(batch, num_classes)` in the units of the data."""
        numbers: Tensor = self(batch[0]).float()
        return numbers

    def prediction_table(self, outputs: Sequence[Tensor], examples: Examples) -> Table:
        """The predicted numbers of each image, by name."""
        return [*self.names_of(examples)], torch.cat([*outputs]).tolist()

    def figures(self, kept: Mapping[str, Mapping[str, Any]], data: Any, title: str) -> "Iterator[tuple[str, Figure]]":
        """Predicted against true numbers, residuals, and the images with the largest loss."""
        from lightning_cnn.figures.images import image_grid
        from lightning_cnn.figures.regression import residuals, scatter

        names, answers, worst = self.names_of(data), kept.get("answers", {}), kept.get("worst", {})
        if "predictions" in answers:
            said, true = (answers[column].float().cpu().numpy().T for column in ("predictions", "labels"))
            yield "scatter", scatter(said, true, names, title)
            yield "residuals", residuals(said, true, names, title)
        if IMAGES in worst:
            pairs = zip(worst["predictions"], worst["labels"], strict=True)
            yield (
                "worst",
                image_grid(worst[IMAGES], [f"{_written(said)},\nis {_written(true)}" for said, true in pairs]),
            )

    def _losses(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """The loss of each number, standardized."""
        return self.loss_of((predictions - labels) / self.target_std, torch.zeros_like(labels), reduction="none")


def _written(numbers: Tensor) -> str:
    return ", ".join(f"{number:.3g}" for number in numbers.tolist())
