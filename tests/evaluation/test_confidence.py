"""The calibration error, wherever it is printed, against a plain loop."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_cnn.cli import main
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.confidence import CalibrationError, calibration_error, calibration_groups
from lightning_cnn.evaluation.returns.measures import Settings, evaluate
from lightning_cnn.evaluation.returns.predictions import panel, read_predictions
from lightning_cnn.modules import ImageClassifier, ReturnClassifier


def loop(confidence: Any, right: Any) -> float:
    """The definition, one answer at a time: bin m of 15 holds the confidences in ((m - 1) / 15, m / 15]."""
    sums: dict[int, list[float]] = {}
    for value, is_right in zip(np.asarray(confidence, np.float32), right, strict=True):
        number = 1
        while number < 15 and value > np.float32(number / 15):
            number += 1
        found = sums.setdefault(number, [0.0, 0.0])
        found[0] += float(value)
        found[1] += float(is_right)
    return sum(abs(said - seen) for said, seen in sums.values()) / len(confidence)


def sampled(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Confidences of all sizes, many of them 0, 1 or on an edge, and which answers are right."""
    random = np.random.default_rng(seed)
    confidence = random.random(count)
    confidence[::4] = random.integers(0, 16, len(confidence[::4])) / 15
    right = random.random(count) < 0.7 * confidence + 0.1
    return torch.from_numpy(confidence), torch.from_numpy(right)


# the function and the metric


def test_confidence_one_shares_the_last_bin() -> None:
    confidence = torch.tensor([1.0] * 50 + [0.95] * 50)
    right = torch.tensor([True] * 45 + [False] * 5 + [True] * 50)
    assert calibration_error(confidence, right).item() == pytest.approx(0.025, abs=1e-7)
    assert loop(confidence, right) == pytest.approx(0.025, abs=1e-7)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_calibration_error_is_that_of_a_plain_loop(kind: torch.dtype) -> None:
    confidence, right = sampled(3000)
    confidence = confidence.to(kind)
    assert calibration_error(confidence, right).item() == pytest.approx(loop(confidence.float(), right), abs=1e-7)


@pytest.mark.parametrize("number", range(16))
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_an_edge_belongs_to_the_lower_bin(number: int, kind: type) -> None:
    """In both precisions: with an answer just below it gets the mean of both, with one just above it does not."""
    edge = kind(number / 15)
    below, above = np.float32(max(0, (number - 0.5) / 15)), np.float32(min(1, (number + 0.5) / 15))
    right = torch.tensor([True, False])
    for other, together in ((below, True), (above, number in (0, 15))):
        pair = [float(np.float32(edge)), float(other)]
        apart = (abs(pair[0] - 1) + pair[1]) / 2
        wanted = abs(sum(pair) - 1) / 2 if together else apart
        confidence = torch.tensor([edge, kind(other)], dtype=torch.float64 if kind is np.float64 else torch.float32)
        assert calibration_error(confidence, right).item() == pytest.approx(wanted, abs=1e-7)


def test_batches_and_processes_make_no_difference() -> None:
    """Not in the last digit: the sums are whole numbers."""
    confidence, right = sampled(1000)
    wanted = calibration_error(confidence, right)
    random = np.random.default_rng(1)
    for _ in range(20):
        metrics = [CalibrationError() for _ in range(3)]
        order = torch.from_numpy(random.permutation(1000))
        for rows in order.tensor_split(np.sort(random.integers(0, 1000, 9)).tolist()):
            metrics[random.integers(3)].update(confidence[rows], right[rows])
        whole = CalibrationError()
        whole.sums = torch.stack([metric.sums for metric in metrics]).sum(0)
        whole.update(confidence[:0], right[:0])
        assert torch.equal(whole.compute(), wanted)


def test_what_is_no_probability_is_refused() -> None:
    right = torch.tensor([True, False])
    for wrong in ([1.5, 0.5], [-0.1, 0.5]):
        with pytest.raises(ValueError, match="softmax or sigmoid"):
            calibration_error(torch.tensor(wrong), right)
    assert calibration_error(torch.tensor([0.5, math.nan]), right).isnan()
    assert calibration_error(torch.empty(0), right[:0]).isnan()


def test_groups_of_true_and_of_false_probabilities() -> None:
    random = np.random.default_rng(0)
    truth = random.uniform(0.2, 0.8, 40_000)
    happened = random.random(40_000) < truth
    said, seen, count = calibration_groups(truth, happened)
    assert count.tolist() == [4000] * 10
    assert np.abs(said - seen).max() < 0.03  # the standard error is 0.008
    said, seen, _ = calibration_groups(1 - truth, happened)
    assert said + seen == pytest.approx([1.0] * 10, abs=0.03)
    said, seen, count = calibration_groups(np.ones_like(truth), happened)
    assert (said.tolist(), seen.tolist(), count.tolist()) == ([1.0], [happened.mean()], [40_000])
    assert [len(part) for part in calibration_groups(truth[:0], happened[:0])] == [0, 0, 0]


def test_groups_are_those_of_pandas_in_any_order() -> None:
    random = np.random.default_rng(0)
    probabilities, happened = random.integers(0, 12, 500) / 12, random.random(500) < 0.4
    frame = pd.DataFrame({"said": probabilities, "seen": happened.astype(float)})
    wanted = frame.groupby(pd.qcut(frame["said"], 10, duplicates="drop"), observed=True).mean()
    for order in (np.arange(500), random.permutation(500)):
        said, seen, count = calibration_groups(probabilities[order], happened[order])
        assert said == pytest.approx(wanted["said"].to_numpy()) and seen == pytest.approx(wanted["seen"].to_numpy())
        assert count.sum() == 500


# every path that prints it


class Given(torch.nn.Module):
    """Gives the images themselves as logits."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def measured(logits: Tensor, labels: Tensor, batch_size: int, verb: str, precision: Any = "32-true") -> float:
    """What a trainer logs as the calibration error of an `ImageClassifier` with these logits."""
    model = ImageClassifier("linear", num_classes=logits.shape[1], image_size=28)
    model.network = Given()
    loader = DataLoader(TensorDataset(logits[:, None, None], labels), batch_size)
    run = Trainer(
        accelerator="cpu", logger=False, barebones=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, precision=precision,
    )  # fmt: skip
    (found,) = getattr(run, verb)(model, loader, verbose=False)
    return found[f"{'val' if verb == 'validate' else 'test'}/ece"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_logits_between_0_and_1_stay_logits(verb: str) -> None:
    logits, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 0.0]]), torch.zeros(3, dtype=torch.int64)
    wanted = loop(logits.softmax(1).amax(1), [True] * 3)
    assert wanted == pytest.approx(0.3597, abs=1e-4)
    for batch_size in (1, 2, 3):
        assert measured(logits, labels, batch_size, verb) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_classifier_in_batches_of_any_size(precision: Any) -> None:
    """Some batches of logits lie within 0 and 1, some softmaxes reach 1."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.rand(120, 5, generator=draw) * torch.tensor([1.0, 4.0, 200.0]).repeat_interleave(40)[:, None]
    if precision == "bf16-true":
        logits = logits.bfloat16().float()
    labels = torch.where(torch.rand(120, generator=draw) < 0.6, logits.argmax(1), 0)
    wanted = loop(logits.softmax(1).amax(1), logits.argmax(1) == labels)
    for batch_size in (7, 40, 120):
        assert measured(logits, labels, batch_size, "test", precision) == pytest.approx(wanted, abs=1e-6)


def test_returns_training_figure_and_report_agree(tmp_path: Path) -> None:
    """The metric of the module, the figure of the run, and the report of the same predictions."""
    random = np.random.default_rng(0)
    scores = torch.from_numpy(random.normal(0, 8, 600)).float()
    scores[:40] = 50.0  # the sigmoid is 1
    outcomes = torch.from_numpy(np.where(random.random(600) < 0.5 + 0.3 * np.sign(scores.numpy()), 0.1, -0.1)).float()
    chance = scores.sigmoid()
    wanted = loop(chance, outcomes > 0)
    assert (chance == 1).sum() >= 40 and wanted > 0.1
    months = torch.arange(600) // 60
    module = ReturnClassifier("returns_ffnn")
    found = module.metrics_of(scores, outcomes, months)["ece"]
    assert found.item() == pytest.approx(wanted, abs=1e-6)
    answers = {"scores": scores, "outcomes": outcomes, "months": months, "probabilities": chance}
    figure = dict(module.figures({"answers": answers}, None, "test"))["calibration"]
    assert figure.axes[0].get_title() == f"test: 600 returns, ECE {wanted:.4f}"
    frame = pd.DataFrame({"date": pd.to_datetime("2010-01-01") + pd.to_timedelta(31 * (np.arange(600) // 60), "D")})
    frame["ticker"] = [f"S{number % 60}" for number in range(600)]
    frame["prediction"], frame["outcome"] = chance.numpy(), outcomes.numpy()
    frame.attrs["kind"] = "probability"
    frame.to_parquet(tmp_path / "predictions.parquet")
    numbers = evaluate(panel(read_predictions(tmp_path / "predictions.parquet")), Settings()).model.numbers
    assert numbers["ece"] == pytest.approx(wanted, abs=1e-6)
    frame["prediction"] *= 2
    frame.attrs["kind"] = "probability"
    frame.to_parquet(tmp_path / "predictions.parquet")
    with pytest.raises(UserError, match="declares probabilities, but its predictions range from"):
        read_predictions(tmp_path / "predictions.parquet")


def test_a_run_prints_what_its_predictions_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training, test in batches of another size, and a loop over the probabilities of the best checkpoint."""
    quiet = ["--wandb", "disabled", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    words = ["--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1"]
    assert main(["train", *words, *quiet]) == 0
    (folder,) = Path("runs").glob("*/*")
    trained = capsys.readouterr().out
    checkpoint = str(folder / "checkpoints" / "best.ckpt")
    assert main(["test", "--ckpt_path", checkpoint, "--data.batch_size", "7", *quiet[2:]]) == 0
    tested = capsys.readouterr().out
    from lightning_cnn.datamodules import Digits

    model = ImageClassifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    data = Digits()
    data.load_state_dict(torch.load(checkpoint, weights_only=True)["Digits"])
    data.setup("test")
    images, labels = data.dataset("test")[torch.arange(len(data.dataset("test")))]  # type: ignore[arg-type]
    with torch.no_grad():
        shares = F.softmax(model(data.preprocessing.scale(images.float() / 255)), 1)
    wanted = f"{loop(shares.amax(1), shares.argmax(1) == labels):.4f}"
    rows = [line.split() for line in (trained + tested).splitlines() if line.startswith("ece ")]
    assert [row[-1] for row in rows] == [wanted, wanted]
