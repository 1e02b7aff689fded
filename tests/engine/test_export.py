"""Export to ONNX and torch.export, and the example that runs the file without torch."""

import csv
import json
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from explained import made, save
from PIL import Image
from refusals import refusing
from small_data import digits
from torch import Tensor, nn

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.export import export
from lightning_cnn.engine.export_formats import FORMATS
from lightning_cnn.modules import CapsuleClassifier, ImageClassifier, ImageRegressor, MultiLabelClassifier

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "experiments" / "onnx_predict.py"
# the example where neither torch nor this package can be imported
WITHOUT_TORCH = f"""
import runpy, sys
for name in ("torch", "torchvision", "timm", "pytorch_lightning", "lightning_cnn"):
    sys.modules[name] = None
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""
GREY = Preprocessing(28, 1, mean=(0.13,), std=(0.31,))
COLOUR = Preprocessing(32, 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), class_names=tuple("abcdefghij"))


def save_checkpoint(preprocessing: Preprocessing, architecture: str, **options: Any) -> ImageClassifier:
    """Writes `made.ckpt` with a network whose logits are far from 0 and from each other, as after training."""
    torch.manual_seed(0)
    model = ImageClassifier(
        architecture, in_channels=preprocessing.in_channels, image_size=preprocessing.image_size, **options
    ).eval()
    for module in model.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_mean"), -0.1, 0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    images = torch.randn(4, preprocessing.in_channels, *2 * (preprocessing.image_size,))
    head: Any = model.network.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight.mul_(3 / model(images).std())
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "Data": {"preprocessing": preprocessing.to_dict()},
    }
    torch.save(content, "made.ckpt")
    return model


def run_onnx(path: str | Path, images: Tensor) -> tuple[Tensor, dict[str, str]]:
    """Logits and metadata of an ONNX file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits), session.get_modelmeta().custom_metadata_map


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of a short run of LeNet5 on Digits."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["fit", "--data", "Digits", "--runs_dir", str(folder), "--experiment", "digits", "--wandb", "disabled"]
    assert main([*words, "--trainer.max_epochs", "2", "--trainer.enable_model_summary", "false"]) == 0
    return next(folder.glob("*/*/checkpoints/best.ckpt"))


@pytest.fixture(scope="session")
def exported(trained: Path) -> Path:
    """The same network as ONNX."""
    path = trained.with_name("digits.onnx")
    assert main(["export", "--ckpt_path", str(trained), "--output", str(path)]) == 0
    return path


@pytest.mark.parametrize(
    ("architecture", "preprocessing", "options"),
    [
        ("lenet5_1998", replace(GREY, image_size=32, padding=2), {}),
        ("cnn3", COLOUR, {"flip_average": True}),
        ("cifar_fast", COLOUR, {"channels_last": True}),
        ("cifar_fast", COLOUR, {"flip_average": True, "shift_average": True}),
        ("test_resnet", COLOUR, {}),
    ],
    ids=["lenet5_1998", "cnn3", "cifar_fast", "averaged", "test_resnet"],
)
def test_onnx_is_the_same_as_torch(
    architecture: str, preprocessing: Preprocessing, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    model = save_checkpoint(preprocessing, architecture, **options)
    assert main(["export", "--ckpt_path", "made.ckpt"]) == 0
    printed = capfd.readouterr()
    assert printed.err == "" and len(printed.out.splitlines()) == 3
    script = shlex.split(printed.out.splitlines()[2].partition(": ")[2])[1]
    assert Path(script).samefile(EXAMPLE)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["made.ckpt", "model.onnx"]
    for count in (1, 2, 5):
        images = torch.randn(count, preprocessing.in_channels, *2 * (preprocessing.image_size,))
        logits, metadata = run_onnx("model.onnx", images)
        with torch.no_grad():
            expected = model(images)
        assert expected.shape == (count, 10) and expected.std() > 1
        assert (logits - expected).abs().max() < 1e-4
    assert metadata["architecture"] == architecture and metadata["run"] == ""
    names = json.loads(metadata["class_names"])
    assert names == list(preprocessing.class_names or "0123456789")
    carried = {**json.loads(metadata["preprocessing"]), "class_names": preprocessing.class_names}
    assert Preprocessing.from_dict(carried) == preprocessing


def test_torch_export(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["export", "--ckpt_path", str(trained), "--output", "new/net.pt2"]) == 0
    printed = capfd.readouterr()
    assert printed.err == "" and "difference 0.0e+00" in printed.out
    files = {"class_names": "", "preprocessing": "", "architecture": "", "run": ""}
    program = torch.export.load("new/net.pt2", extra_files=files).module()
    assert json.loads(files["class_names"]) == list("0123456789")
    assert json.loads(files["preprocessing"])["image_size"] == 28
    assert (files["architecture"], files["run"]) == ("lenet5", f"digits/{trained.parents[1].name}")
    model = ImageClassifier.load_from_checkpoint(trained, weights_only=True, map_location="cpu").eval()
    for count in (1, 2, 5):
        images = torch.randn(count, 1, 28, 28)
        with torch.no_grad():
            assert torch.equal(program(images), model(images))
    assert str(PROJECT).encode() not in Path("new/net.pt2").read_bytes()  # as torch's stack traces would have it


def test_the_example_classifies_as_predict_does(trained: Path, exported: Path) -> None:
    for number, image in enumerate(digits(20, first=1300)[0]):
        Image.fromarray(image).resize((40, 50)).save(f"{number:02d}.png")
    assert main(["predict", "--ckpt_path", str(trained), "--images", "."]) == 0
    with open("predictions.csv") as file:
        expected = list(csv.DictReader(file))
    assert len({row["class"] for row in expected}) > 3
    words = [str(exported), *(row["file"] for row in expected), "--top_k", "2", "--batch_size", "7"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for line, row in zip(done.stdout.splitlines(), expected, strict=True):
        path, name, share, second, _ = line.split("  ")
        assert (path, name, second) == (row["file"], row["class"], row["class_2"])
        assert float(share.rstrip("%")) / 100 == pytest.approx(float(row["probability"]), abs=0.001)


@pytest.mark.parametrize(
    "preprocessing",
    [
        GREY,
        replace(GREY, mean=(0.0,), std=(1.0,), padding=2),
        replace(COLOUR, resize="pad", mean=(0.0,), std=(1 / 255,)),
        replace(COLOUR, resize="crop", crop_share=0.875, interpolation="bicubic"),
        replace(COLOUR, interpolation="bicubic"),
    ],
    ids=["grey", "padded", "raw", "crop", "stretch"],
)
def test_the_example_prepares_images_as_in_training(preprocessing: Preprocessing) -> None:
    example = runpy.run_path(str(EXAMPLE))
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (45, 60, 3), dtype=np.uint8)).save("wide.png")
    Image.fromarray(draw.integers(0, 256, (32, 32, 4), dtype=np.uint8)).save("transparent.png")
    Image.fromarray(draw.integers(0, 65536, (50, 40), dtype=np.uint16)).save("deep.png")
    turned = Image.new("RGB", (1, 1)).getexif()
    turned[0x0112] = 6
    Image.fromarray(draw.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save("turned.jpg", exif=turned)
    carried = json.loads(json.dumps(preprocessing.to_dict()))
    for name in ("wide.png", "transparent.png", "deep.png", "turned.jpg"):
        found = example["prepare"](example["decode"](name, carried), carried)
        expected = preprocessing.scale(preprocessing.read(name).float() / 255).numpy()
        assert found.dtype == np.float32 and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_real_network(shared_data: Path) -> None:
    """ImageNet weights, 20 photos: the file without torch gives the class that `predict` gives."""
    weights = str(shared_data / "weights" / "tf_efficientnet_lite0.pth")
    source = ["--architecture", "tf_efficientnet_lite0", "--weights", weights]
    photos = sorted(str(path) for path in (shared_data / "photos").glob("*.jpg"))
    assert main(["predict", *source, "--images", *photos]) == 0
    assert main(["export", *source, "--output", "lite0.onnx"]) == 0
    call = [sys.executable, "-c", WITHOUT_TORCH, "lite0.onnx", *photos]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    with open("predictions.csv") as file:
        expected = [[row["file"], row["class"]] for row in csv.DictReader(file)]
    assert len(expected) == 20
    assert [line.split("  ")[:2] for line in done.stdout.splitlines()] == expected


# what goes wrong


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs an export that must fail without leaving anything; returns its one line."""
    return refusing("export", capsys)


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        ([], "which model?"),
        (["--ckpt_path", "a.ckpt", "--architecture", "resnet18"], "which model?"),
        (["--ckpt_path", "nowhere.ckpt"], "no checkpoint nowhere.ckpt"),
        (["--ckpt_path", "a.ckpt", "--output", "model.pb"], "must end in .onnx (ONNX) or .pt2 (torch.export)"),
        (["--ckpt_path", "a.ckpt", "--output", "model"], "must end in .onnx"),
        (["--ckpt_path", "a.ckpt", "--output", "model.pt2", "--format", "onnx"], "remove one of them"),
        (["--ckpt_path", "a.ckpt", "--format", "tflite"], "'tflite'"),
        (["--ckpt_path", "a.ckpt", "--out", "model.onnx"], "--out"),
    ],
)
def test_wrong_words(words: list[str], telling: str, refused: Callable[..., str]) -> None:
    assert telling in refused(*words)


def test_output_that_cannot_be_written(trained: Path, refused: Callable[..., str]) -> None:
    Path("file").touch()
    Path("folder.onnx").mkdir()
    for output, telling in (
        ("file/model.onnx", "can't make file (File exists)"),
        ("folder.onnx", "can't write folder.onnx (Is a directory)"),
    ):
        line = refused("--ckpt_path", str(trained), "--output", output)
        assert telling in line and "--output" in line


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, trained: Path, refused: Callable[..., str]) -> None:
    for name in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    line = refused("--ckpt_path", str(trained))
    assert "needs onnxruntime, onnxscript: pip install 'lightning-cnn[export]'; or take --output model.pt2" in line
    assert main(["export", "--ckpt_path", str(trained), "--format", "torch"]) == 0


@pytest.mark.parametrize("fault", [2e-4, float("nan")])
def test_a_file_with_other_outputs_is_not_kept(
    fault: float, monkeypatch: pytest.MonkeyPatch, trained: Path, refused: Callable[..., str]
) -> None:
    Path("model.pt2").write_text("of before")
    form = FORMATS["torch"]

    def load(path: Path) -> Callable[[Tensor], Tensor]:
        program = form.load(path)
        # only the last image of a batch of five differs
        return lambda images: program(images) + fault * (torch.arange(len(images)) == 4)[:, None] * 30

    monkeypatch.setitem(FORMATS, "torch", replace(form, load=load))
    line = refused("--ckpt_path", str(trained), "--output", "model.pt2")
    assert "was not written: its outputs differ from torch's by" in line
    assert Path("model.pt2").read_text() == "of before"


def test_a_network_without_finite_outputs(refused: Callable[..., str]) -> None:
    save_checkpoint(GREY, "lenet5")
    content = torch.load("made.ckpt", weights_only=True)
    content["state_dict"]["network.head.bias"][3] = float("nan")
    torch.save(content, "made.ckpt")
    assert "outputs are NaN or infinite" in refused("--ckpt_path", "made.ckpt", "--format", "torch")


def test_a_network_that_cannot_be_traced(monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]) -> None:
    save_checkpoint(GREY, "lenet5")

    def forward(self: ImageClassifier, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits if logits.sum() > 0 else -logits

    monkeypatch.setattr(ImageClassifier, "forward", forward)
    assert "torch.export can't trace this network" in refused("--ckpt_path", "made.ckpt")


def test_the_example_says_what_is_wrong(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.onnx").write_text("hello")
    Path("text.png").write_text("hello")
    example = runpy.run_path(str(EXAMPLE))
    for model, image, telling in (
        ("nowhere.onnx", "text.png", "there is no file nowhere.onnx"),
        ("text.onnx", "text.png", "text.onnx can't be read as ONNX"),
        (str(exported), "text.png", "can't decode the image text.png"),
        (str(exported), "nowhere.png", "can't decode the image nowhere.png"),
    ):
        with pytest.raises(SystemExit) as caught, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["onnx_predict.py", model, image])
            example["main"]()
        line = capsys.readouterr().err.rstrip("\n")
        assert caught.value.code == 2
        assert line.startswith("error: ") and telling in line and "\n" not in line


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        (ImageClassifier, "lenet5"),
        (MultiLabelClassifier, "lenet5"),
        (CapsuleClassifier, "efficient_capsnet"),
        (ImageRegressor, "lenet5"),
    ],
)
def test_the_example_says_what_predict_says(kind: Any, architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a task makes of its outputs: softmax, sigmoid, lengths, numbers."""
    preprocessing = replace(GREY, class_names=tuple("abcdefghij"))
    model = made(preprocessing, architecture, kind)
    if kind is ImageRegressor:
        model.target_mean.fill_(-20)
        model.target_std.fill_(300)
        save(model, preprocessing)
    image = digits(1)[0][0]
    Image.fromarray(image).save("digit.png")
    frame = lc.predict("made.ckpt", images=["digit.png"], top_k=3).iloc[0]
    lc.export("made.ckpt", output="model.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["onnx_predict.py", "model.onnx", "digit.png", "--top_k", "3"])
        runpy.run_path(str(EXAMPLE))["main"]()
    name, *said = capsys.readouterr().out.splitlines()[-1].split("  ")
    assert name == "digit.png"
    if kind is ImageRegressor:
        for letter, text in zip("abcdefghij", said, strict=True):
            assert text.startswith(f"{letter} ") and float(text[2:]) == pytest.approx(frame[letter], rel=1e-3, abs=1e-2)
    elif kind is MultiLabelClassifier:
        assert said[0] == (frame["labels"] or "nothing")
        assert float(said[1].rstrip("%")) == pytest.approx(100 * frame["probability"], abs=0.06)
    else:
        classes, shares = said[::2], [float(text.rstrip("%")) for text in said[1::2]]
        assert classes == [frame[column] for column in ("class", "class_2", "class_3")]
        wanted = [100 * frame[column] for column in ("probability", "probability_2", "probability_3")]
        assert shares == pytest.approx(wanted, abs=0.06)


def test_the_help_offers_every_format() -> None:
    assert tuple(FORMATS) == get_args(get_args(export.__annotations__["format"])[0])
