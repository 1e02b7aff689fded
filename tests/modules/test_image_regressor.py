"""ImageRegressor: what it measures, learns, predicts, draws and exports."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch
from image_sets import write_folder, write_table
from PIL import Image
from pytorch_lightning import Trainer, seed_everything
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.modules import ImageRegressor
from lightning_cnn.modules.image_regressor import RegressionMetrics

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A short run on rotated digits."""
    folder = str(tmp_path_factory.mktemp("runs"))
    trainer = {"max_epochs": 4}
    return lc.train("rotated_digits_cnn3", trainer=trainer, model={"lr": 0.003}, runs_dir=folder, wandb="disabled")


def answers(run: Any) -> tuple[Tensor, Tensor]:
    """Predictions of the test images by hand, and their true values."""
    module, data = run.module().eval(), run.datamodule()
    data.setup("test")
    images, labels = data.dataset("test")[torch.arange(len(data.dataset("test")))]
    scaled = data.preprocessing.scale(images.float() / 255)
    with torch.no_grad():
        return module.network(scaled) * module.target_std + module.target_mean, labels


def test_it_learns_the_angle(run: Any) -> None:
    """A network that has learned nothing is off by 22.5 degrees on average."""
    predictions, labels = (part.numpy() for part in answers(run))
    assert run.metrics["test/mae"] == pytest.approx(mean_absolute_error(labels, predictions), rel=1e-4)
    assert run.metrics["test/rmse"] == pytest.approx(root_mean_squared_error(labels, predictions), rel=1e-4)
    assert run.metrics["test/r2"] == pytest.approx(r2_score(labels, predictions), abs=1e-4)
    errors = (predictions - labels) / (45 / 3**0.5)
    assert run.metrics["test/loss"] == pytest.approx(float((errors**2).mean()), rel=1e-3)
    assert run.metrics["test/mae"] < 8 and run.metrics["test/r2"] > 0.8
    assert {"test_scatter.png", "test_residuals.png", "test_worst.png"} <= {
        path.name for path in (run.folder / "figures").iterdir()
    }


def test_it_predicts_in_the_units_of_the_data(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, _ = answers(run)
    data = run.datamodule()
    data.setup("test")
    images, _ = data.dataset("test")[torch.arange(3)]
    frame = run.predict([*images.numpy()[:, 0]])
    assert [*frame.columns] == ["file", "angle"]
    np.testing.assert_allclose(frame["angle"], predictions[:3, 0], rtol=1e-3, atol=1e-3)
    Image.fromarray(images[0, 0].numpy()).save("digit.png")
    best = str(run.folder / "checkpoints" / "best.ckpt")
    assert main(["predict", "--ckpt_path", best, "--images", "digit.png"]) == 0
    assert Path("predictions.csv").read_text().startswith("file,angle\ndigit.png,")
    for words in (["explain", "--ckpt_path", best, "digit.png"], ["features", "--data", "RotatedDigits"]):
        capsys.readouterr()
        assert main(words) == 2
        assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]) == 1


def test_the_exported_file_gives_the_same_numbers(run: Any) -> None:
    lc.export(run, output="angle.onnx")
    images = torch.randn(3, 1, 28, 28)
    session = onnxruntime.InferenceSession("angle.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, run.module().eval()(images).numpy(), rtol=1e-3, atol=1e-3)


def test_averaged_weights_are_scaled(tmp_path: Path) -> None:
    """The scale of the labels is known only when the average exists already."""
    average = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}
    run = lc.train(
        "rotated_digits_cnn3",
        trainer={"max_epochs": 2, "callbacks": [average]},
        runs_dir=str(tmp_path),
        wandb="disabled",
    )
    assert float(cast(Any, run.module()).target_std) == pytest.approx(45 / 3**0.5)
    predictions, labels = answers(run)
    assert run.metrics["test/mae"] == pytest.approx(float((predictions - labels).abs().mean()), rel=1e-3)


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": {"schedule": "none"}, "runs_dir": str(tmp_path), "wandb": "disabled"}
    whole, first = (
        lc.train("rotated_digits_cnn3", trainer={"max_epochs": epochs, "limit_train_batches": 5}, **settings)
        for epochs in (2, 1)
    )
    then = first.resume(trainer={"max_epochs": 2})
    for name, value in whole.module().state_dict().items():
        torch.testing.assert_close(then.module().state_dict()[name], value, rtol=0, atol=0)


def test_a_run_that_goes_on_keeps_the_loss_that_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = {"limit_train_batches": 2, "limit_val_batches": 1, "max_epochs": 1}
    for monitor in ("val/loss", "val/mae"):
        fields: dict[str, Any] = {
            "trainer": tiny,
            "checkpoint": {"monitor": monitor},
            "wandb": "disabled",
            "runs_dir": monitor[4:],
        }
        made = lc.fit(data="RotatedDigits", model={"architecture": "cnn3"}, **fields)
        more: dict[str, Any] = {"model": {"loss": "mae"}, "trainer": {"max_epochs": 2}}
        if monitor == "val/mae":
            assert made.resume(**more).metrics["val/mae"] > 0
            continue
        with pytest.raises(
            lc.UserError, match=r"`model.loss` mae: the best epoch of .* was chosen by the val/loss of mse"
        ):
            made.resume(**more)


def test_several_numbers_have_metrics_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(Path("photos"), {"train/all": 40, "test/all": 9})
    write_table(Path("photos"), "train/all", "test/all")
    lines = Path("photos/labels.csv").read_text().splitlines()
    rows = [line.split(",")[:2] for line in lines[1:]]
    table = [f"{file},{part},{1e6 + 3 * number},{-number / 7},5" for number, (file, part) in enumerate(rows)]
    Path("photos/labels.csv").write_text("\n".join(["file,part,score,depth,same", *table]))
    run = lc.train(
        data={"class_path": "ImageValues", "root": "photos", "image_size": 28, "val_split": "last"},
        trainer={"max_epochs": 1},
        wandb="disabled",
    )
    predictions, labels = (part.numpy() for part in answers(run))
    for place, name in enumerate(("score", "depth", "same")):
        said, true = predictions[:, place], labels[:, place]
        assert run.metrics[f"test/mae_{name}"] == pytest.approx(mean_absolute_error(true, said), rel=1e-3, abs=0.1)
        assert run.metrics[f"test/rmse_{name}"] == pytest.approx(root_mean_squared_error(true, said), rel=1e-3, abs=0.1)
    assert "test/r2_same" not in run.metrics and "test/r2" not in run.metrics
    assert run.metrics["test/r2_depth"] == pytest.approx(r2_score(labels[:, 1], predictions[:, 1]), rel=1e-3)
    module, data = cast(Any, run.module()), cast(Any, run.datamodule())
    data.setup("fit")
    std = data.label_scale()[1]
    numbers = data.dataset("train")[torch.arange(32)][1].double().numpy()
    np.testing.assert_allclose(module.target_mean.numpy(), numbers.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), numbers.std(0), rtol=1e-6)
    assert module.target_std[2] == 1  # a number that never changes
    capsys.readouterr()
    words = ["predict", "--ckpt_path", str(run.folder / "checkpoints" / "best.ckpt"), "--images", "photos/test"]
    assert main(words) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("photos/test/all/000.png  score ") and "  depth " in first and "%" not in first
    assert last == "9 files predicted, written to predictions.csv"


def test_metrics_are_those_of_scikit_learn() -> None:
    """Also where the numbers are large beside their differences, which float32 sums lose."""
    random = np.random.default_rng(0)
    labels = (1e6 + random.normal(0, 10, (500, 2))).astype(np.float32)
    predictions = (labels + random.normal(0, 3, (500, 2))).astype(np.float32)
    metrics = RegressionMetrics()
    for rows in np.array_split(np.arange(500), 7):
        metrics.update(torch.from_numpy(predictions[rows]), torch.from_numpy(labels[rows]))
    found = metrics.compute()
    exact = predictions.astype(np.float64), labels.astype(np.float64)
    np.testing.assert_allclose(found["mae"], mean_absolute_error(exact[1], exact[0], multioutput="raw_values"))
    np.testing.assert_allclose(found["rmse"], root_mean_squared_error(exact[1], exact[0], multioutput="raw_values"))
    np.testing.assert_allclose(found["r2"], r2_score(exact[1], exact[0], multioutput="raw_values"))


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_it_trains_in_a_plain_trainer(loss: Any) -> None:
    """Without a data module the labels are learned as they are."""
    seed_everything(0, verbose=False)
    images = torch.rand(256, 1, 1, 1).expand(-1, 1, 8, 8) + 0.1 * torch.rand(256, 1, 8, 8)
    loader = DataLoader(TensorDataset(images, 2 * images.mean((2, 3))), 32)
    module = ImageRegressor("linear", num_classes=1, image_size=8, loss=loss, lr=0.01)
    trainer = Trainer(max_epochs=10, accelerator="cpu", **QUIET)
    trainer.fit(module, loader, loader)
    assert trainer.callback_metrics["val/mae"] < 0.1 and trainer.callback_metrics["val/r2"].isfinite()


def test_an_unknown_loss_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "rotated_digits_cnn3", "--model.loss", "cubed"]) == 2
    assert "--model.loss" in capsys.readouterr().err
    assert main(["train", "--data", "Digits", "--model", "ImageRegressor"]) == 2
    assert "ImageRegressor requires numbers, but Digits has classes" in capsys.readouterr().err
    assert not Path("runs").exists()
