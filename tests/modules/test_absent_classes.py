"""Classes, digits, places and months without an answer have no metric, and no part in a mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.evaluation.returns.measures import Settings, evaluate
from lightning_cnn.evaluation.returns.page import figures
from lightning_cnn.evaluation.returns.predictions import Panel
from lightning_cnn.evaluation.returns.ranking import RANKING, ranking_metrics
from lightning_cnn.figures.classification import confusion_matrix
from lightning_cnn.modules import DigitDetector, HouseNumberReader, ReturnClassifier, ReturnRegressor


def logged(module: LightningModule, *parts: Tensor) -> dict[str, float]:
    """What a test of some batches logs."""
    run = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.test(module, DataLoader(TensorDataset(*parts), 8), verbose=False)
    return {name: float(value) for name, value in run.callback_metrics.items()}


def test_ranking_that_is_not_defined_is_nan() -> None:
    """A month of one class takes no part in `auc_month`, months that are all of one class leave it undefined."""
    random = np.random.default_rng(0)
    scores, outcomes, months = random.normal(size=90), random.normal(size=90), np.arange(90) // 30
    outcomes[:30] = abs(outcomes[:30])

    def found(rows: slice) -> dict[str, float]:
        parts = (torch.from_numpy(part[rows]) for part in (scores, outcomes, months))
        return {name: float(value) for name, value in ranking_metrics(*parts).items()}

    values = found(slice(0, 90))
    assert set(values) == set(RANKING)
    aucs = [roc_auc_score(outcomes[rows] > 0, scores[rows]) for rows in (slice(30, 60), slice(60, 90))]
    assert values["auc_month"] == pytest.approx(np.mean(aucs))
    values = found(slice(0, 30))
    ic = stats.spearmanr(scores[:30], outcomes[:30]).statistic
    assert values == pytest.approx(
        {"auc": np.nan, "auc_month": np.nan, "ic": ic, "ic_t": np.nan, "ic_positive": float(ic > 0)}, nan_ok=True
    )
    outcomes[:] = 0.0
    assert np.isnan([*found(slice(0, 90)).values()]).all()


@pytest.mark.parametrize("kind", [ReturnClassifier, ReturnRegressor])
def test_returns_of_one_class(kind: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    windows, months = torch.randn(40, 1, 36, generator=draw), torch.zeros(40, dtype=torch.int64)
    outcomes = torch.rand(40, generator=draw) + 0.01
    values = logged(kind("returns_ffnn"), windows, outcomes, months)
    assert values["test/up_rate"] == 1 and {"test/loss", "test/acc", "test/ic"} <= values.keys()
    assert not {"test/auc", "test/auc_month", "test/ic_t"} & values.keys()
    outcomes[::2] *= -1
    assert {"test/auc", "test/auc_month"} <= logged(kind("returns_ffnn"), windows, outcomes, months).keys()


@pytest.mark.parametrize(("digits", "names"), [([], []), ([3], ["map", "map50", "map_3"])])
def test_boxes_of_few_digits(digits: Sequence[int], names: list[str]) -> None:
    labels = torch.full((10, 2, 5), -1.0)
    for digit in digits:
        labels[4, 0] = torch.tensor([digit, 5.0, 5, 20, 40])
    values = logged(DigitDetector(image_size=64), torch.rand(10, 3, 64, 64), labels)
    assert values.keys() == {"test/acc", *(f"test/{name}" for name in names)}


def test_places_that_no_number_has() -> None:
    labels = torch.tensor([[1, 7, 10, 10, 10, 10], [2, 1, 0, 10, 10, 10]]).repeat(5, 1)
    values = logged(HouseNumberReader("linear"), torch.rand(10, 1, 32, 32), labels)
    assert {name for name in values if "digit" in name} == {"test/digit1_acc", "test/digit2_acc"}


def test_confusion_without_a_class() -> None:
    axes = confusion_matrix(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 2, 2]]), ["a", "b", "c"], "test").axes[0]
    shares: Any = axes.images[0].get_array()
    assert np.ma.filled(shares, np.nan)[[0, 2]].tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5]]
    assert np.isnan(np.ma.filled(shares, np.nan)[1]).all()


def test_months_without_a_value_have_no_part_in_the_moving_average() -> None:
    random = np.random.default_rng(0)
    chance, outcomes = random.random((24, 30)), random.normal(0, 0.1, (24, 30))
    outcomes[5:9] = abs(outcomes[5:9])
    months = np.arange("2010-01", "2012-01", dtype="datetime64[M]")
    tickers = np.array([f"S{number}" for number in range(30)], dtype=object)
    found = evaluate(Panel(months, tickers, outcomes, {"model": chance}, {"model": "probability"}), Settings())
    assert np.flatnonzero(np.isnan(found.model.auc_month)).tolist() == [5, 6, 7, 8]
    (line,) = [line for line in figures(found)["auc_months"].axes[0].lines if "mean" in str(line.get_label())]
    wanted = [np.nanmean(found.model.auc_month[first : first + 12]) for first in range(13)]
    assert np.asarray(line.get_ydata()) == pytest.approx(wanted)
