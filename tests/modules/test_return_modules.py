"""ReturnClassifier and ReturnRegressor: what they measure, what they find where there is something, and what not."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from price_files import panel, write
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.datamodules import Digits, MonthlyReturns, SyntheticReturns
from lightning_cnn.errors import UserError
from lightning_cnn.modules import ReturnClassifier, ReturnRegressor
from lightning_cnn.modules.return_regressor import rank_loss

Data = MonthlyReturns
Answers = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]
FAST: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
SMALL: dict[str, Any] = {"stocks": 60, "months": 70, "lags": 12, "momentum": 0.25, "january": 0.5, "val_months": 6}


def module(data: Data, kind: Any = ReturnClassifier, architecture: str = "returns_cnn", **options: Any) -> Any:
    """A module that fits the data, with equal weights each time."""
    seed_everything(0, verbose=False)
    size: dict[str, Any] = {"window_length": data.window_length, "lags": data.lags, "in_channels": data.in_channels}
    return kind(architecture, **size, **{"optimizer": "adam", "lr": 0.01, **options})


def trained(data: Data, epochs: int = 2, model: Any = None, callbacks: Any = (), **options: Any) -> Any:
    """A module after so many epochs, and its trainer."""
    model = module(data, **options) if model is None else model
    trainer = Trainer(max_epochs=epochs, callbacks=[*callbacks], **FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, data)
    return model, trainer


def on_test(data: Data, model: Any, trainer: Trainer) -> dict[str, float]:
    (found,) = trainer.test(model, data, verbose=False)
    return {name.removeprefix("test/"): value for name, value in found.items()}


def answers(data: Data, model: Any, part: str) -> Answers:
    """Scores, outcomes and months of a part."""
    windows, outcomes, months = data.arrays(part)
    with torch.no_grad():
        scores = model.eval()(torch.from_numpy(windows)).double().numpy()
    return scores, outcomes.astype(np.float64), months


def within(se: float, count: NDArray[np.bool_], auc: float) -> bool:
    """Whether an AUC is no farther from one half than so many standard errors (Hanley and McNeil 1982)."""
    up, down = int(count.sum()), int((~count).sum())
    return bool(abs(auc - 0.5) < se * math.sqrt((up + down + 1) / (12 * up * down)))


@pytest.fixture
def data() -> SyntheticReturns:
    return SyntheticReturns(**SMALL)


# what is measured


def by_hand(scores: Any, outcomes: Any, months: Any) -> dict[str, float]:
    """The metrics as scikit-learn and SciPy compute them, month by month in a loop."""
    up = outcomes > 0
    groups = [months == month for month in np.unique(months)]
    ics = np.array([stats.spearmanr(scores[rows], outcomes[rows]).statistic for rows in groups])
    chance = 1 / (1 + np.exp(-scores))
    bins = np.minimum((chance * 15).astype(int), 14)
    gaps = [abs(chance[bins == b].mean() - up[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return {
        "loss": float(log_loss(up, chance)),
        "acc": float(accuracy_score(up, chance > 0.5)),
        "up_rate": float(up.mean()),
        "auc": float(roc_auc_score(up, scores)),
        "auc_month": float(np.mean([roc_auc_score(up[rows], scores[rows]) for rows in groups])),
        "ic": float(ics.mean()),
        "ic_t": float(stats.ttest_1samp(ics, 0).statistic),
        "ic_positive": float((ics > 0).mean()),
        "ece": float(sum(gaps)),
    }


class Epochs(Callback):
    """Keeps the answers of each validation, and what was logged."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.found: list[tuple[Answers, dict[str, float]]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            logged = {name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items()}
            self.found.append((answers(self.data, pl_module, "val"), logged))


def test_metrics_are_those_of_the_epoch_alone_and_flaw_b_the_auc_that_is_never_reset(data: SyntheticReturns) -> None:
    """Epoch by epoch; the AUC that goes on over training, validation and epochs is another number."""
    learned: list[tuple[Tensor, Tensor]] = []
    model = module(data, accumulate_auc=True, lr=0.02)
    before = model.learned

    def remembered(scores: Tensor, outcomes: Tensor) -> None:
        learned.append((scores, outcomes))
        before(scores, outcomes)

    model.learned = remembered
    epochs = Epochs(data)
    trained(data, 5, model, [epochs])
    assert len(epochs.found) == 5
    batches = len(learned) // 5
    for number, (seen, logged) in enumerate(epochs.found, start=1):
        for name, value in by_hand(*seen).items():
            assert logged[name] == pytest.approx(value, abs=2e-5), name
        so_far = [(s.numpy(), o.numpy()) for s, o in learned[: number * batches]]
        so_far += [found[:2] for found, _ in epochs.found[:number]]
        scores, outcomes = (np.concatenate(part) for part in zip(*so_far, strict=True))
        assert logged["auc_accumulated"] == pytest.approx(roc_auc_score(outcomes > 0, scores), abs=0.004)
    first, last = epochs.found[0][1], epochs.found[-1][1]
    assert abs(last["auc_accumulated"] - last["auc"]) > 0.02 > abs(first["auc"] - by_hand(*epochs.found[0][0])["auc"])
    assert "auc_accumulated" not in trained(data, 1)[1].callback_metrics


def test_metrics_do_not_depend_on_how_the_rows_are_split(data: SyntheticReturns) -> None:
    """Over batches, and over processes, whose states are joined: exact, not a mean of means."""
    data.setup("fit")
    model = module(data)
    rows = [torch.from_numpy(part) for part in answers(data, model, "val")]
    whole = model.metrics_of(*rows)
    for cuts in ([1], [7, 8, 100], [359]):
        processes = model.make_metrics("val"), model.make_metrics("val")
        for number, batch in enumerate(zip(*(torch.tensor_split(part, cuts) for part in rows), strict=True)):
            processes[number % 2].update(*batch)
        processes[0].merge_state(processes[1])
        joined = processes[0].compute()
        assert len(joined["scores"]) == 360
        found = model.metrics_of(**joined)
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            {name: float(value) for name, value in whole.items()}, abs=1e-12
        )


# what is found


def test_the_network_comes_within_five_per_cent_of_the_best_reachable_auc() -> None:
    data = SyntheticReturns(lags=12, test_start="2018-01", batch_size=512)
    model, trainer = trained(data, 2, architecture="returns_cnn", schedule="cosine")
    found, best = on_test(data, model, trainer), data.best_auc("test")
    assert best > 0.64
    assert found["auc"] - 0.5 > 0.95 * (best - 0.5)


def test_shuffled_outcomes_give_an_auc_of_one_half(data: SyntheticReturns) -> None:
    """Within two standard errors; with the true outcomes it lies far above."""
    aucs = {}
    for shuffled in (False, True):
        data = SyntheticReturns(**SMALL | {"stocks": 150})
        for stage in ("fit", "test"):
            data.setup(stage)
        for part in ("train", "val", "test") if shuffled else ():
            windows = data.dataset(part)
            windows.outcomes = windows.outcomes[
                torch.randperm(len(windows), generator=torch.Generator().manual_seed(3))
            ]
        model, trainer = trained(data, 3)
        aucs[shuffled] = on_test(data, model, trainer)["auc"]
        up = data.arrays("test")[1] > 0
    assert within(2, up, aucs[True]) and not within(6, up, aucs[False])


def test_flaw_h_the_accuracy_of_always_up_is_hard_to_beat(tmp_path: Path) -> None:
    """Prices without any signal but a rise: an accuracy far above one half, that of always up, with an AUC of none."""
    months = pd.date_range("2008-01-31", "2015-12-31", freq="ME", name="date")
    returns = np.random.default_rng(2).normal(0.02, 0.05, (len(months), 80))
    closes = pd.DataFrame(np.cumprod(1 + returns, axis=0), months, [f"T{n}" for n in range(80)])
    data = MonthlyReturns(str(write(closes, tmp_path / "rising.parquet")), lags=6)
    model, trainer = trained(data, 2)
    found = on_test(data, model, trainer)
    assert found["acc"] > 0.62 and found["acc"] == pytest.approx(found["up_rate"], abs=0.01)
    assert within(3, data.arrays("test")[1] > 0, found["auc"])


@pytest.mark.parametrize("loss", ["mse", "rank"])
def test_the_regressor_orders_the_stocks(loss: str, data: SyntheticReturns) -> None:
    data = SyntheticReturns(**SMALL, batch_size=512)
    model, trainer = trained(data, 4, kind=ReturnRegressor, architecture="returns_ffnn", loss=loss)
    found = on_test(data, model, trainer)
    scores, outcomes, months = answers(data, model, "test")
    wanted = by_hand(scores, outcomes, months)
    for name in ("auc", "auc_month", "ic", "ic_t", "ic_positive", "up_rate"):
        assert found[name] == pytest.approx(wanted[name], abs=2e-5), name
    assert found["ic"] > 0.1 and found["ic_t"] > 2.5  # without skill 0 +- 0.04
    if loss == "mse":
        assert found["mse"] == pytest.approx(((scores - outcomes) ** 2).mean(), rel=1e-5)
        assert found["acc"] == pytest.approx(((scores > 0) == (outcomes > 0)).mean())
    else:
        assert not {"mse", "acc", "ece"} & found.keys()


def test_the_rank_loss_pair_by_pair() -> None:
    random = torch.Generator().manual_seed(0)
    scores, outcomes = torch.randn(2, 30, generator=random)
    outcomes[4] = outcomes[9]
    months = torch.arange(30) % 4
    pairs = [
        F.softplus(scores[worse] - scores[better])
        for better in range(30)
        for worse in range(30)
        if months[better] == months[worse] and outcomes[better] > outcomes[worse]
    ]
    assert float(rank_loss(scores, outcomes, months)) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-5)
    assert float(rank_loss(scores[:1], outcomes[:1], months[:1])) == 0


# no look into the future


def test_the_future_changes_no_prediction() -> None:
    """Bit for bit: clipping and scaling, weights after training, and predictions up to the month."""
    closes, split = panel(20), {"train_end": "2011-06", "val_months": 6, "test_start": "2011-08", "test_end": "2012-06"}
    other = closes.copy()
    future = other.loc["2011-11":].index
    other.loc[future] *= np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.1, (len(future), 20)), axis=0))
    other.loc[future[40:], "T03"] = np.nan
    for flaw in (False, True):
        found = []
        for number, table in enumerate((closes, other)):
            path = write(table, Path(f"p{number}.parquet"))
            data = MonthlyReturns(str(path), lags=6, clip_with_test=flaw, batch_size=200, **split)  # type: ignore[arg-type]
            model, _ = trained(data, 1)
            data.setup("test")
            past = data.frame("test").date < "2011-11-01"
            assert past.sum() == 3 * 20
            scores = answers(data, model, "test")[0]
            weights = [value.numpy().tobytes() for value in model.state_dict().values()]
            found.append((repr(data.state_dict()), weights, scores[past].tobytes(), scores[~past].tobytes()))
        assert [one == other for one, other in zip(*found, strict=True)] == [not flaw] * 3 + [False]


# what a user can get wrong


@pytest.mark.parametrize(
    ("options", "trainer", "telling"),
    [
        ({"architecture": "returns_picture"}, {}, "add `data.picture` true"),
    ],
)
def test_what_does_not_go_together(
    options: dict[str, Any], trainer: dict[str, Any], telling: str, data: SyntheticReturns
) -> None:
    with pytest.raises(UserError, match=telling):
        Trainer(max_epochs=1, **FAST, **trainer).fit(module(data, **options), data)


def test_other_data_and_numbers_that_cannot_be(data: SyntheticReturns) -> None:
    with pytest.raises(UserError, match="requires monthly returns, but Digits has classes: add"):
        Trainer(max_epochs=1, **FAST).fit(module(data), Digits())
    with pytest.raises(UserError, match="num_classes` 10: it must be at least 1 and at most 1"):
        ReturnClassifier(num_classes=10)
