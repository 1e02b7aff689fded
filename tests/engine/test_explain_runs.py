"""Runs that are explained: the page of the worst test images, and the lags of returns that matter."""

import base64
import io
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from image_sets import write_folder, write_table
from PIL import Image
from price_files import panel, write
from small_data import digits, write_image_folder, write_mnist
from torch.nn import functional as F

import lightning_cnn as lc
from lightning_cnn.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A short run on Digits."""
    folder = tmp_path_factory.mktemp("runs")
    return lc.train("digits_lenet5", trainer={"max_epochs": 2}, runs_dir=str(folder), wandb="disabled")


def test_the_page_has_the_worst_test_images(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = lc.explain(run, worst=7)
    module, data = run.module(), run.datamodule()
    data.setup("test")
    images, labels = data.on_after_batch_transfer(data.dataset("test")[torch.arange(len(data.dataset("test")))], 0)
    with torch.no_grad():
        logits = module(images)
    losses = F.cross_entropy(logits, labels, reduction="none")
    worst = losses.argsort(descending=True)[:7]
    assert [*found.frame["file"]] == [str(place) for place in worst.tolist()]
    np.testing.assert_allclose(found.frame["loss"], losses[worst].numpy(), rtol=1e-3)
    assert [*found.frame["label"]] == [data.class_names[number] for number in labels[worst].tolist()]
    chances, guesses = logits.softmax(1)[worst].max(1)
    assert [*found.frame["class"]] == [data.class_names[number] for number in guesses.tolist()]
    np.testing.assert_allclose(found.frame["probability"], chances.numpy(), rtol=1e-3)
    assert found.path == run.folder / "explain.html" and found.maps.shape == (7, 28, 28)
    text = found.path.read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 3 * 7  # the image, the map of the prediction and that of the label
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))[..., 0]
    pixels = data.preprocessing.unscale(images[worst[0]])[0]
    np.testing.assert_array_equal(first, (255 * pixels).round().numpy().astype(np.uint8))
    row = found.frame.iloc[0]
    assert f"confidence {row.probability:.1%}, loss {row.loss:.3g}" in text and "http" not in text
    assert main(["explain", "--run", str(run.folder), "--worst", "3", "--method", "occlusion", "--target", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"3 images, written to {run.folder / 'explain.html'}"
    assert (run.folder / "explain.html").read_text().count("<img ") == 2 * 3


SHORT = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}


def test_the_page_has_the_names_of_files_and_labels() -> None:
    write_folder(Path("photos"), {"train/all": 12, "test/all": 6})
    write_table(Path("photos"), "train/all", "test/all")
    data = {"class_path": "ImageTable", "root": "photos", "image_size": 28}
    run = lc.fit(data=data, model={"class_path": "MultiLabelClassifier"}, trainer=SHORT)
    found = run.explain(worst=4, output="pages/worst.html")
    assert found.path == Path("pages/worst.html") and len(found.frame) == 4
    names = set(found.frame["file"])
    assert names < {f"test/all/{number:03d}.png" for number in range(6)} and all(
        name in found.path.read_text() for name in names
    )
    with torch.no_grad():
        for row in found.frame.itertuples():
            chances = run.predict(Path("photos") / row.file).iloc[0]
            truth = {label: label in row.label.split("+") for label in ("odd", "large", "test")}
            wrong = max(truth, key=lambda label: abs(chances[label] - truth[label]))
            assert row.target == wrong and row.probability == pytest.approx(chances[wrong], rel=1e-3)


@pytest.mark.parametrize("data", ["MNIST", "OverlappingDigits", "AffineMNIST"])
def test_the_page_of_capsules(data: str) -> None:
    write_mnist(Path("data"), train=100, test=40)
    model = {"class_path": "CapsuleClassifier", "architecture": "efficient_capsnet"}
    run = lc.fit(data=data, model=model, trainer=SHORT)
    found = run.explain(worst=3)
    assert [*found.frame["loss"]] == sorted(found.frame["loss"], reverse=True)
    assert found.path.read_text().count("<img ") == (2 if data == "OverlappingDigits" else 3) * 3
    assert np.isfinite(found.maps).all() and found.layer == "features.11"


def test_data_without_a_test_part_have_no_page() -> None:
    write_image_folder(Path("photos"), classes=2, parts=("train",))
    run = lc.fit(data={"class_path": "ImageFolder", "root": "photos", "image_size": 28}, trainer=SHORT)
    with pytest.raises(lc.UserError, match=r"^the data has no test part: add images to explain$"):
        run.explain()
    assert not (run.folder / "explain.html").exists()


@pytest.fixture(scope="module")
def returns(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A short run on simulated returns with momentum of lags 2 to 12, and January."""
    folder = tmp_path_factory.mktemp("returns")
    data = {"class_path": "SyntheticReturns", "stocks": 100, "momentum": 0.25, "january": 0.8}
    model = {"class_path": "ReturnClassifier", "architecture": "returns_ffnn", "lr": 1e-3}
    return lc.fit(data=data, model=model, trainer={"max_epochs": 3}, runs_dir=str(folder), wandb="disabled", seed=1)


def test_the_lags_that_matter_are_found(returns: Any) -> None:
    found = lc.explain(returns)
    frame = found.frame
    assert [*frame.columns] == ["channel", "column", "integrated_gradients", "occlusion"] and len(frame) == 36
    for method in ("integrated_gradients", "occlusion"):
        values = frame.set_index("column")[method]
        known = values[[f"lag {lag}" for lag in range(2, 13)]]
        others = values[[f"lag {lag}" for lag in (1, *range(13, 25))]]
        assert known.mean() > 2 * others.mean()
        assert values["lag 25" if "lag 25" in values else "lag 24"] < known.mean()
        months = values[24:]
        assert months.idxmax() == "January"
    assert found.path == returns.folder / "explain.png" and found.path.is_file()


def test_the_lags_are_those_of_a_loop(returns: Any) -> None:
    found = lc.explain(returns, steps=100)
    module, data = returns.module(), returns.datamodule()
    data.setup("test")
    windows = torch.from_numpy(data.arrays("test")[0])
    with torch.no_grad():
        before = module(windows)
        for place in (0, 5, 23, 24, 35):
            hidden = windows.clone()
            hidden[:, :, place] = 0
            expected = (before - module(hidden)).abs().double().mean()
            assert found.frame["occlusion"][place] == pytest.approx(float(expected), rel=1e-4)
        difference = before - module(torch.zeros_like(windows))
    assert found.maps.shape == windows.shape
    np.testing.assert_allclose(found.maps.sum((1, 2)), difference.numpy(), atol=0.02 * float(difference.abs().max()))
    means = np.abs(found.maps.astype(np.float64)).mean(0)[0]
    np.testing.assert_allclose(found.frame["integrated_gradients"], means, rtol=1e-4)


def test_a_dummy_counts_once_in_several_channels(capsys: pytest.CaptureFixture[str]) -> None:
    closes = panel(stocks=12)
    write(closes, Path("prices.parquet"))
    write(closes.mean(axis=1).to_frame("market"), Path("market.csv"))
    data = {"class_path": "MonthlyReturns", "prices": "prices.parquet", "lags": 4}
    data["channels"] = {"market": {"file": "market.csv"}}  # type: ignore[assignment]
    run = lc.fit(data=data, model={"class_path": "ReturnRegressor", "architecture": "returns_cnn_split"}, trainer=SHORT)
    frame = run.explain(method="occlusion").frame
    assert [*frame["channel"]] == ["return"] * 4 + ["market"] * 4 + [""] * 12
    assert [*frame["column"][:5]] == ["lag 1", "lag 2", "lag 3", "lag 4", "lag 1"] and frame["column"][8] == "January"
    module, loaded = run.module(), cast(Any, run.datamodule())
    loaded.setup("test")
    windows = torch.from_numpy(loaded.arrays("test")[0])
    for place, hide in ((5, (1, 1)), (10, (slice(None), 6))):  # lag 2 of the market, March
        hidden = windows.clone()
        hidden[:, hide[0], hide[1]] = 0
        with torch.no_grad():
            change = (module(windows) - module(hidden)).abs().mean()
        assert frame["occlusion"][place] == pytest.approx(float(change), rel=1e-3) and change > 0
    assert main(["explain", "--run", str(run.folder), "--method", "saliency"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: of returns --method is integrated_gradients or occlusion")


def test_returns_refuse_what_is_for_images(returns: Any) -> None:
    for name, value in {"layer": "features", "target": 1, "window": 3, "worst": 5}.items():
        with pytest.raises(lc.UserError, match=rf"^`{name}` is for images, but .* monthly returns: remove it$"):
            lc.explain(returns, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(lc.UserError, match=r"^of returns `method` is integrated_gradients or occlusion$"):
        lc.explain(returns, method="gradcam")
    with pytest.raises(lc.UserError, match=r"^`steps` is for `method` integrated_gradients: remove it$"):
        lc.explain(returns, method="occlusion", steps=9)
    with pytest.raises(lc.UserError, match=r"^the checkpoint was trained on monthly returns: remove the images"):
        lc.explain(returns, digits(1)[0])
