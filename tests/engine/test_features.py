"""`features` and `probe`: the file holds what the network computes, and a classifier on it is honest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pyarrow import parquet
from small_data import write_cifar10, write_cifar10_folder, write_image_folder, write_mnist
from torch import nn

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.config.checkpoint import read_checkpoint
from lightning_cnn.datamodules import CIFAR10, MNIST, Digits
from lightning_cnn.engine import feature_file
from lightning_cnn.engine.feature_file import read_features
from lightning_cnn.engine.loading import load_model

PIXELS = ["features", "--pixels", "--data", "Digits", "--data.normalize", "unit"]


def probe(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["probe", *words, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_pixels(suffix: str) -> None:
    assert main([*PIXELS, "--output", f"pixels{suffix}"]) == 0
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == [f"pixels{suffix}"]
    found, data = read_features(Path(f"pixels{suffix}")), Digits(normalize="unit")
    for stage in ("fit", "test"):
        data.setup(stage)
    for part, positions in (("train", data.dataset("train").indices), ("test", range(360))):  # type: ignore[attr-defined]
        assert found.files[found.parts == part].tolist() == [str(int(position)) for position in positions]
    for part in ("train", "val", "test"):
        images, labels = data.dataset(part)[torch.arange(len(data.dataset(part)))]  # type: ignore[arg-type]
        values, classes = found.part(part)
        assert np.array_equal(values, images.flatten(1).numpy() / np.float32(255))
        assert np.array_equal(classes, labels.numpy())
    assert found.class_names == tuple("0123456789")
    assert found.source == {"architecture": "pixels", "weights": "", "data": "Digits"}


def test_features_are_the_models_own(tmp_path: Path) -> None:
    """Of a run's checkpoint: on its data, its head makes the run's own logits of them."""
    words = ["--data", "Digits", "--data.augment.shift", "0.1", "--trainer.max_epochs", "1", "--wandb", "disabled"]
    assert main(["fit", *words]) == 0
    (best,) = Path("runs").glob("*/*/checkpoints/best.ckpt")
    assert main(["features", "--ckpt_path", str(best), "--parts", "test"]) == 0
    found = read_features(Path("features.parquet"))
    assert found.values.shape == (360, 84) and set(found.parts) == {"test"}
    model, preprocessing = load_model(read_checkpoint(best))
    data = Digits()
    data.setup("test")
    data.load_state_dict({"preprocessing": preprocessing.to_dict()})
    (images, labels) = data.on_after_batch_transfer(data.dataset("test")[torch.arange(360)], 0)
    network: nn.Module = model.eval().network  # type: ignore[assignment]
    with torch.no_grad():
        expected = network(images)
        logits = network.get_classifier()(torch.from_numpy(found.values))  # type: ignore[operator]
    assert torch.allclose(logits, expected, atol=1e-4)
    assert np.array_equal(found.labels, labels.numpy())
    assert found.source == {"architecture": "lenet5", "weights": str(best), "data": "Digits"}
    # of other data, which measured by themselves would be scaled in another way
    write_mnist(tmp_path / "data")
    assert main(["features", "--ckpt_path", str(best), "--data", "MNIST", "--parts", "test"]) == 0
    other = MNIST(normalize="unit")
    other.setup("test")
    (images, _) = other.dataset("test")[torch.arange(200)]
    with torch.no_grad():
        expected = network(preprocessing.scale(images / 255))
        logits = network.get_classifier()(torch.from_numpy(read_features(Path("features.parquet")).values))  # type: ignore[operator]
    assert torch.allclose(logits, expected, atol=1e-4)


def test_a_data_module_of_its_own_is_scaled_like_the_training() -> None:
    words = ["--data", "Digits", "--trainer.max_epochs", "1", "--wandb", "disabled", "--experiment", "digits"]
    assert main(["fit", *words]) == 0
    (best,) = Path("runs").glob("*/*/checkpoints/best.ckpt")
    assert main(["features", "--ckpt_path", str(best), "--parts", "test"]) == 0
    expected = read_features(Path("features.parquet")).values
    run = lc.load_run(best.parents[1])
    other = Digits()
    other.scale_by([0.9], [0.1])
    lc.features(run, other, output="own.parquet", parts=["test"])
    assert np.allclose(read_features(Path("own.parquet")).values, expected, atol=1e-6)
    fixed = Digits(normalize="raw")  # what is said of the scaling stays
    lc.features(run, fixed, output="raw.parquet", parts=["test"])
    assert not np.allclose(read_features(Path("raw.parquet")).values, expected, atol=1e-2)


def test_pretrained_weights_get_their_own_scaling(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t").eval()
    torch.save(network.state_dict(), "weights.pth")
    root = write_cifar10_folder(tmp_path / "images", train=4, test=2)
    words = ["--architecture", "resnet10t", "--weights", "weights.pth", "--data", "ImageFolder"]
    assert main(["features", *words, "--data.root", str(root), "--data.image_size", "32"]) == 0
    table = parquet.read_table("features.parquet").to_pylist()
    assert [row["part"] for row in table].count("test") == 20
    for row in (table[0], table[-1]):
        (path,) = root.rglob(row["file_name"]) if not Path(row["file_name"]).exists() else [Path(row["file_name"])]
        assert path.parent.name == row["class"]
        pixels = torch.from_numpy(np.asarray(Image.open(path)) / 255).permute(2, 0, 1)[None]
        mean, std = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        with torch.no_grad():
            scaled = ((pixels - mean) / std).float()
            expected = network.forward_head(network.forward_features(scaled), pre_logits=True)[0]
        assert torch.allclose(torch.tensor(row["features"]), expected, atol=1e-4)


def test_file_names_of_cifar10(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "data", train=50, test=10)
    words = ["features", "--pixels", "--data", "CIFAR10", "--data.check_md5", "false", "--output", "pixels.npz"]
    assert main(words) == 0
    found, data = read_features(Path("pixels.npz")), CIFAR10(check_md5=False)
    names = [data.class_names[label] for label in found.labels]
    assert all(file.startswith(f"{name}_s_") for file, name in zip(found.files, names, strict=True))


def test_raw_pixels_are_a_strong_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    """As the chapter says of MNIST; chance is 10 %."""
    assert main([*PIXELS, "--output", "pixels.npz"]) == 0
    assert probe(capsys, "pixels.npz", "--method", "knn")["accuracy"]["test"] > 0.95
    assert probe(capsys, "pixels.npz", "--method", "svm")["accuracy"]["test"] > 0.95
    few = probe(capsys, "pixels.npz", "--method", "logistic", "--max_rows", "300", "--standardize")
    assert few["train_images"] == 300 and few["accuracy"]["test"] > 0.85


def test_validation_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    """In the test part, which repeats the training part, one neighbour is best: it must not have a say."""
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    values = np.eye(3)[labels] + 0.7 * generator.normal(size=(300, 3))
    parts = np.repeat(["train", "val", "test"], 100)
    values[200:], labels[200:] = values[:100], labels[:100]
    content: dict[str, Any] = {"features": values.astype(np.float32), "label": labels, "part": parts}
    names: dict[str, Any] = {"file_name": parts, "class_names": np.array(["a", "b", "c"]), "source": np.array("{}")}
    np.savez("made.npz", **content, **names)
    scores = {}
    for count in (1, 9, 25):
        scores[count] = probe(capsys, "made.npz", "--method", "knn", "--neighbors", str(count))["accuracy"]
    chosen = probe(capsys, "made.npz", "--method", "knn", "--neighbors", "1", "9", "25")
    best = max(scores, key=lambda count: scores[count]["val"])
    assert chosen["neighbors"] == best and chosen["accuracy"] == scores[best]
    assert scores[1]["val"] < scores[best]["val"] and scores[1]["test"] == 1 > scores[best]["test"]


def test_grey_images_in_a_network_for_colours(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), "weights.pth")
    words = ["features", "--architecture", "resnet10t", "--weights", "weights.pth", "--data", "ImageFolder"]
    words += ["--data.root", str(write_image_folder(Path("images"), parts=("train",))), "--data.normalize", "unit"]
    assert main([*words, "--output", "colour.npz"]) == 0
    assert main([*words, "--data.color", "grey", "--output", "grey.npz"]) == 0
    colour, grey = (read_features(Path(name)) for name in ("colour.npz", "grey.npz"))
    assert np.allclose(colour.values, grey.values, atol=1e-5)
    assert set(colour.parts) == {"train", "val"}  # there is no test/
    assert "there is no folder images/test" in refused(capsys, *words, "--parts", "test")


def test_large_features_are_written_in_several_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_file, "GROUP_BYTES", 300 * 784 * 4)
    assert main([*PIXELS, "--output", "grouped.parquet"]) == 0
    assert main([*PIXELS, "--output", "whole.npz"]) == 0
    assert parquet.ParquetFile("grouped.parquet").num_row_groups > 3
    grouped, whole = (read_features(Path(name)) for name in ("grouped.parquet", "whole.npz"))
    assert np.array_equal(grouped.values, whole.values) and np.array_equal(grouped.files, whole.files)
    assert np.array_equal(grouped.labels, whole.labels) and np.array_equal(grouped.parts, whole.parts)


def test_wrong_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there is no file nowhere.npz" in refused(capsys, "probe", "nowhere.npz")
    assert "ends in .parquet or .npz" in refused(capsys, "probe", "features.csv")
    assert "ends in .parquet or .npz" in refused(capsys, *PIXELS, "--output", "features.csv")
    for name in ("text.npz", "text.parquet"):
        Path(name).write_text("text")
        assert f"{name} is not a file of features" in refused(capsys, "probe", name)
    assert "invalid choice: 'kmeans'" in refused(capsys, "probe", "x.npz", "--method", "kmeans")
    assert "number above 0" in refused(capsys, "probe", "x.npz", "--c", "-1")
    assert main([*PIXELS, "--output", "pixels.npz"]) == 0
    capsys.readouterr()
    assert "exceeds the 100 training images" in refused(
        capsys, "probe", "pixels.npz", "--method", "knn", "--neighbors", "101", "--max_rows", "100"
    )
    assert "1 images of one class" in refused(capsys, "probe", "pixels.npz", "--max_rows", "1")
    assert main([*PIXELS, "--parts", "train", "--output", "train.npz"]) == 0
    capsys.readouterr()
    assert "neither a validation nor a test part" in refused(capsys, "probe", "train.npz")
    assert main([*PIXELS, "--parts", "train", "test", "--output", "both.npz"]) == 0
    capsys.readouterr()
    assert "no validation part" in refused(capsys, "probe", "both.npz", "--c", "1", "2")
    assert "--c is not an option of --method knn" in refused(capsys, "probe", "both.npz", "--method", "knn", "--c", "1")
    content = dict(np.load("both.npz"))
    np.savez("shorter.npz", **{**content, "label": content["label"][:-1]})
    assert "differ in length" in refused(capsys, "probe", "shorter.npz")
    content["features"][-1, 0] = np.inf
    np.savez("infinite.npz", **content)
    assert "features that are NaN or infinite" in refused(capsys, "probe", "infinite.npz")
    assert "which model?" in refused(capsys, "features", "--data", "Digits")
    assert "uses no network" in refused(capsys, *PIXELS, "--architecture", "resnet18")
    torch.save(timm.create_model("resnet10t").state_dict(), "weights.pth")
    words = ["--weights", "weights.pth", "--data", "Digits"]
    assert "do not fit resnet18" in refused(capsys, "features", "--architecture", "resnet18", *words)
    assert "can't make pixels.npz (File exists)" in refused(capsys, *PIXELS, "--output", "pixels.npz/features.npz")
    assert not list(tmp_path.rglob("*.tmp-*"))
