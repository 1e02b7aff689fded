"""The pictures of predicted returns: calibration, information coefficient by month, and returns by decile."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import CatMetric

from lightning_cnn.evaluation.returns.ranking import group_ranks, monthly_ics
from lightning_cnn.figures import prediction_plots


class ReturnFigures:
    """Collects the answers of steps that return `scores`, `outcomes` and `months`, each `(batch,)`, and draws them.

    Where there are `probabilities`, too, it draws their calibration.
    """

    needs = frozenset({"scores", "outcomes", "months"})
    drawn = ("_gathered",)  # what the figures are drawn from, plain data once it is gathered

    def __init__(self) -> None:
        self._columns: dict[str, CatMetric] = {}

    def add(self, outputs: dict[str, Tensor], windows: Tensor) -> None:
        """Adds a batch.

        Args:
            outputs: What the step returned.
            windows: Not used.
        """
        for name in ("scores", "outcomes", "months", "probabilities"):
            if name in outputs:
                self._columns.setdefault(name, CatMetric(nan_strategy="disable").to(outputs[name].device)).update(
                    outputs[name]
                )

    def gather(self) -> None:
        """Joins the answers of all processes; each of them must call it."""
        self._gathered = {name: metric.compute().cpu().double() for name, metric in self._columns.items()}

    def draw(self, data: Any, title: str) -> Iterator[tuple[str, Figure]]:
        """Names and figures.

        Args:
            data: Not used.
            title: What was measured.
        """
        scores, outcomes, months = (self._gathered[name] for name in ("scores", "outcomes", "months"))
        months = months.long()
        title = f"{title}: {len(scores):,} returns"
        values, ics = monthly_ics(scores, outcomes, months)
        if len(ics):
            yield (
                "ic",
                prediction_plots.ic_plot(values.numpy(), ics.numpy(), f"{title}, mean IC {float(ics.mean()):.4f}"),
            )
        groups = months.unique(return_inverse=True)[1]
        shares = (group_ranks(scores, groups) - 0.5) / torch.bincount(groups)[groups]
        deciles = (10 * shares).long().numpy()
        yield "deciles", prediction_plots.decile_plot(deciles, outcomes.numpy(), months.numpy(), title)
        if "probabilities" in self._gathered:
            up = (outcomes > 0).numpy()
            yield "calibration", prediction_plots.calibration_plot(self._gathered["probabilities"].numpy(), up, title)
