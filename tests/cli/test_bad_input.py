"""What a user can type wrong: one line that says what to do, exit code 2, and nothing half-made left behind."""

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_data import write_idx, write_image_folder, write_mnist
from trainings import train

from lightning_cnn.cli import main

QUICK = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--wandb", "disabled"]
CPUS = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices"]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs a command line that must fail; returns its one line."""

    def run(*words: str) -> str:
        runs_before = sorted(Path("runs").glob("*/*"))
        capsys.readouterr()
        assert main(list(words)) == 2
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and len(lines[0]) < 500 and printed.endswith(lines[0] + "\n")
        assert sorted(Path("runs").glob("*/*")) == runs_before
        return lines[0]

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint of LeNet5 on Digits."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["fit", "--data", "Digits", "--runs_dir", str(folder), *QUICK]) == 0
    return next(folder.glob("*/*/checkpoints/best.ckpt"))


def test_weights_of_another_network(refused: Callable[..., str], checkpoint: Path) -> None:
    line = refused("train", "--data", "Digits", "--model.architecture", "ffnn", "--model.weights", str(checkpoint))
    assert f"the weights in {checkpoint} do not fit ffnn" in line and "use a file for this network" in line


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["trian"], ["'trian'", "did you mean train?"]),
        (["train"], ["which data?", "--data NAME"]),
        (["train", "--data", "Digist"], ["'Digist'", "Digits"]),
        (["train", "--data", "Digits", "--model", "ImageClasifier"], ["did you mean ImageClassifier"]),
        (["train", "--data", "Digits", "--model.architecture", "lenet6"], ["'lenet6'", "lenet5"]),
        (["train", "--data", "Digits", "--model.architecture", "no_file.net"], ["no module", "no_file"]),
        (["train", "--data", "Digits", "--model.learning_rate", "1"], ["did you mean --model.lr?"]),
        (["train", "--data", "Digits", "--data.batchsize", "1"], ["--data.batch_size"]),
        (["train", "--data", "Digits", "--trainer.max_epoch", "1"], ["--trainer.max_epochs"]),
        (["train", "--data", "Digits", "--trainr.max_epochs", "1"], ["--trainer.max_epochs"]),
        (["train", "--data", "Digits", "--data.augment.shft", "1"], ["--data.augment.shift"]),
        (["train", "--data", "Digits", "--data.augment.shift", "3"], ["at least 0 and at most 1"]),
        (["train", "--data", "Digits", "--data.augment.policy", "auto"], ["--data.augment.policy auto", "trivial"]),
        (["train", "--data", "Digits", "--model.architecture", "alexnet"], ["28x28 don't fit", "--data.image_size 64"]),
        (["train", "--data", "Digits", "--model.transfer", "frozen"], ["random weights", "--model.weights FILE"]),
        (
            ["train", "--data", "Digits", "--model.transfer", "staged", "--model.unfreeze_from", "haed"],
            ["'haed'", "no such layer", "did you mean head"],
        ),
        (["train", "--data", "Digits", "--model.weights", "no.pth"], ["no file of weights no.pth"]),
        (["train", "--data", "Digits", "--trainer.callbacks+=EarlyStoping"], ["did you mean EarlyStopping?"]),
        (["train", "--data", "Digits", "--trainer.callbacks+=LayerFrezing"], ["did you mean LayerFreezing?"]),
        (["train", "--data", "Digits", "--trainer.callbacks+=EarlyStopping"], ["--trainer.callbacks.monitor"]),
        (
            ["train", "--data", "Digits", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.patience", "a"],
            ["--trainer.callbacks.patience a: expected int"],
        ),
        (
            ["train", "--data", "Digits", "--trainer.callbacks+=LayerFreezing", "--trainer.callbacks.epoch", "a"],
            ["--trainer.callbacks.epoch a: expected int"],
        ),
        (
            ["train", "--data", "Digits", "--trainer.callbacks+=LayerFreezing", "--trainer.callbacks.epohc", "1"],
            ["unknown option --trainer.callbacks.epohc; did you mean --trainer.callbacks.epoch"],
        ),
        (["train", "--data", "Digits", "--model.lr", "fast"], ["--model.lr fast", "float"]),
        (["train", "--data", "Digits", "--data.val_split", "middle"], ["random, stratified, first, last"]),
        (["train", "--data", "Digits", "--data.val_fraction", "1.5"], ["above 0 and below 1"]),
        (["train", "--data", "Digits", "--data.batch_size", "0"], ["at least 1"]),
        (["train", "--data", "Digits", "--data.image_size", "12"], ["12x12", "--data.image_size"]),
        (["train", "--data", "Digits", "--model.optimizer", "adamm", *QUICK], ["did you mean adam"]),
        (["train", "--data", "Digits", "--model.num_classes", "5"], ["is set from the data"]),
        (["train", "--data", "Digits", "--trainer.accelerator", "gpu"], ["gpu"]),
        (["train", "--data", "Digits", "--trainer.accelerator", "gpuu"], ["gpuu"]),
        (["train", "--data", "Digits", "--trainer.strategy", "dpp"], ["dpp"]),
        (["train", "--data", "Digits", "--trainer.strategy", "fsdp", "--trainer.accelerator", "cpu"], ["fsdp", "GPU"]),
        (["train", "--data", "Digits", *CPUS, "3"], ["--data.batch_size 128", "the 3 processes", "try 129"]),
        (["train", "--data", "Digits", "--checkpoint.monitor", "val/lss", *QUICK], ["val/loss"]),
        (["train", "--data", "Digits", "--checkpoint.monitor", "test/acc"], ["cannot select the checkpoint"]),
        (
            ["train", "--data", "Digits", "--checkpoint.monitor", "val/acc", "--checkpoint.mode", "min"],
            ["--checkpoint.mode max"],
        ),
        (["train", "--data", "Digits", "--wandb", "onlin"], ["online"]),
        (["train", "--data", "Digits", "stray"], ["'stray'"]),
        (["train", "--config", "nowhere.yaml"], ["nowhere.yaml", "list experiments"]),
        (["train", "--resume", "nothing"], ["'nothing'", "list runs"]),
        (["train", "--resume"], ["--resume RUN"]),
        (["train", "--data", "MNIST", "--data.download", "false"], ["MNIST not found", "--data Digits"]),
        (["train", "--data", "ImageFolder", "--data.root", "nowhere"], ["nowhere/train", "--data.root"]),
        (["test", "--data", "Digits"], ["--ckpt_path"]),
        (["test", "--ckpt_path", "nowhere.ckpt"], ["no checkpoint nowhere.ckpt"]),
        (["predict", "--images", "x.png"], ["--ckpt_path"]),
        (["predict", "--ckpt_path", "nowhere.ckpt", "--images", "x.png"], ["no checkpoint nowhere.ckpt"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_mistyped(words: list[str], telling: list[str], refused: Callable[..., str]) -> None:
    line = refused(*words)
    for part in telling:
        assert part in line
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("data: [MNIST\n", "not YAML"),
        ("just words\n", "not a configuration"),
        ("data: Digits\ntrainer: {max_epochs: many}\n", "--trainer.max_epochs many: expected int"),
        ("data: Digits\ntrainer: {max_epoch: 3}\n", "did you mean --trainer.max_epochs"),
        ("data: Digits\nmodel: {lrr: 3}\n", "did you mean --model.lr"),
        ("data: Digits\nmodell: {lr: 3}\n", "--modell"),
        ("data: Digits\nmodel: {num_classes: 3}\n", "is set from the data"),
    ],
)
def test_bad_configuration_file(content: str, telling: str, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    assert telling in refused("train", "--config", "bad.yaml")


def test_missing_download_leaves_no_folder(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: torchvision would leave empty folders behind."""
    import socket

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    assert "download failed" in refused("train", "--data", "FashionMNIST")
    assert not Path("data").exists()


def test_damaged_idx_files(refused: Callable[..., str], tmp_path: Path) -> None:
    root = write_mnist(tmp_path / "data", train=60, test=20)
    raw = root / "MNIST" / "raw"
    images, labels = raw / "train-images-idx3-ubyte", raw / "train-labels-idx1-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    assert "train-images-idx3-ubyte is truncated" in refused("train", "--data", "MNIST")
    images.write_bytes(b"not an idx file at all")
    assert "train-images-idx3-ubyte is truncated or not an idx file" in refused("train", "--data", "MNIST")
    images.write_bytes(whole)
    write_idx(labels, __import__("numpy").zeros(59, dtype="uint8"))
    assert "60 images" in refused("train", "--data", "MNIST")


def test_damaged_image_folder(refused: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_image_folder(tmp_path / "own")
    words = ["train", "--data", "ImageFolder", "--data.root", "own", "--data.image_size", "28", *QUICK]
    broken = root / "train" / "digit_1" / "003.png"
    broken.write_bytes(broken.read_bytes()[:40])
    line = refused(*words)
    assert "train/digit_1/003.png" in line and "--data.skip_corrupt true" in line
    assert "003.png" in refused(*words, "--data.max_memory", "0", "--trainer.limit_train_batches", "1.0")
    assert main([*words, "--data.skip_corrupt", "true"]) == 0
    shutil.rmtree("runs")
    (root / "train" / "empty").mkdir()
    assert "train/empty" in refused(*words)
    (root / "train" / "empty").rmdir()
    (root / "test" / "unheard").mkdir()
    line = refused(*words, "--data.skip_corrupt", "true")
    assert "'unheard'" in line


def test_damaged_checkpoints(refused: Callable[..., str], tmp_path: Path, checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    Path("half.ckpt").write_bytes(whole[: len(whole) // 2])
    Path("text.ckpt").write_text("hello")
    for verb in ("test", "fit", "validate"):
        assert "half.ckpt is truncated" in refused(verb, "--ckpt_path", "half.ckpt")
        assert "text.ckpt is" in refused(verb, "--ckpt_path", "text.ckpt")
        line = refused(verb, "--ckpt_path", str(checkpoint), "--model.architecture", "resnet18")
        assert "lenet5" in line and "resnet18" in line
    write_image_folder(tmp_path / "own")
    line = refused("test", "--ckpt_path", str(checkpoint), "--data", "ImageFolder", "--data.root", "own")
    assert "10 classes, 1x28x28" in line and "3 classes, 3x64x64" in line


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


def test_a_checkpoint_with_code_is_not_run(refused: Callable[..., str], checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["callbacks"] = {"x": _Harmful()}
    torch.save(content, "harmful.ckpt")
    for words in (["test", "--ckpt_path"], ["fit", "--ckpt_path"], ["predict", "--images", ".", "--ckpt_path"]):
        assert "contains pickled code" in refused(*words, "harmful.ckpt")
    assert not Path("harmed").exists()


def test_predict(refused: Callable[..., str], checkpoint: Path) -> None:
    words = ["predict", "--ckpt_path", str(checkpoint), "--images"]
    assert "nowhere.png" in refused(*words, "nowhere.png")
    Path("folder").mkdir()
    assert "no images in folder" in refused(*words, "folder")
    Path("folder/broken.png").write_bytes(b"no image")
    assert "folder/broken.png" in refused(*words, "folder")
    assert not Path("predictions.csv").exists()


def test_a_run_that_can_not_go_on(
    refused: Callable[..., str], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished one, one whose process lives, and one that would become another."""
    folder = Path(shutil.copytree(checkpoint.parents[1], "runs/digits/one"))
    assert "has finished its 1 epoch; to continue" in refused("fit", "--resume", "one")
    for word, value, before in (
        ("model.architecture", "ffnn", "lenet5"),
        ("data", "MNIST", "Digits"),
        ("data.val_fraction", "0.3", "0.2"),
        ("seed_everything", "3", "42"),
    ):
        line = refused("fit", "--resume", "one", "--trainer.max_epochs", "2", f"--{word}", value)
        assert f"--{word} {value}" in line.replace("lightning_cnn.datamodules.", "").replace(".class_path", "")
        assert before in line and "a run keeps its network and data" in line
    monkeypatch.setenv("LIGHTNING_CNN_RUN", str(folder))  # as a job that is started once more
    assert "--model.architecture ffnn" in refused("fit", "--data", "Digits", "--model.architecture", "ffnn")
    living = {"status": "running", "end": None, "pid": os.getpid(), "host": socket.gethostname()}
    (folder / "run.json").write_text(json.dumps(json.loads((folder / "run.json").read_text()) | living))
    assert f"is still being trained by process {os.getpid()}" in refused("fit", "--data", "Digits")


def test_a_folder_of_something_else_is_no_run_folder(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years of work")
    monkeypatch.setenv("LIGHTNING_CNN_RUN", "thesis")
    assert "thesis, which contains other files: use a new folder" in refused("fit", "--data", "Digits")
    assert Path("thesis/chapter.txt").read_text() == "years of work"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a GPU: Lightning says it")
def test_more_devices_than_there_are(refused: Callable[..., str]) -> None:
    devices = str((os.cpu_count() or 1) + 1)
    line = refused("fit", "--data", "Digits", "--trainer.devices", devices, "--data.batch_size", devices)
    assert f"--trainer.devices {devices}: no GPU found" in line


def test_no_permission_for_the_run_folder(refused: Callable[..., str]) -> None:
    Path("occupied").write_text("a file where a folder should be")
    line = refused("train", "--data", "Digits", "--runs_dir", "occupied/runs", *QUICK)
    assert "--runs_dir" in line


def test_a_loss_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", "Digits", "--model.architecture", "ffnn", "--model.optimizer", "momentum"]
    assert main([*words, "--model.lr", "1e30", "--trainer.max_epochs", "2", "--wandb", "disabled"]) == 2
    error = capsys.readouterr().err
    assert "NaN or infinite at step" in error and "smaller --model.lr" in error


def test_a_later_nan_keeps_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """After a finished epoch the folder stays, marked as failed, with its checkpoints."""
    (tmp_path / "late.py").write_text(
        "import pytorch_lightning as pl, torch\n"
        "class Late(pl.Callback):\n"
        "    def on_train_epoch_start(self, trainer, module):\n"
        "        if trainer.current_epoch == 1:\n"
        "            torch.nn.init.constant_(module.network.head.bias, float('nan'))\n"
    )
    sys.path.insert(0, str(tmp_path))
    words = ["train", "--data", "Digits", "--trainer.callbacks+=late.Late", "--trainer.max_epochs", "3"]
    assert main([*words, "--wandb", "disabled"]) == 2
    assert "at step 10" in capsys.readouterr().err
    (folder,) = Path("runs").glob("*/*")
    saved = json.loads((folder / "run.json").read_text())
    assert saved["status"] == "failed" and "step 10" in saved["error"] and saved["epochs"] == 1
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0


def test_a_full_disk_keeps_the_previous_checkpoint() -> None:
    """The limit on file size stands in for the full disk; a first epoch has been saved before."""
    words = ["fit", "--data", "Digits", "--wandb", "disabled", "--model.architecture", "lenet5"]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    (folder,) = Path("runs").glob("*/*")
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    second = train(["fit", "--resume", folder.name, "--trainer.max_epochs", "2"], file_size=2_000_000)
    assert second.codes == [2], second.output
    assert re.search(
        r"\nerror: can't write \S+\.ckpt \(the limit .* needed\).*; the previous one is intact", second.output
    )
    assert "Traceback" not in second.output
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert list(folder.rglob("*.tmp-*")) == []
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"


def test_a_crash_is_a_crash(tmp_path: Path) -> None:
    """An error that is not the user's: traceback, exit code 1, the run marked as failed."""
    (tmp_path / "crash.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Crash(pl.Callback):\n"
        "    def on_train_epoch_end(self, trainer, module):\n"
        "        raise RuntimeError('a bug')\n"
    )
    crashed = train(["train", "--data", "Digits", *QUICK, "--trainer.callbacks+=crash.Crash"])
    assert crashed.codes == [1]
    assert "Traceback" in crashed.output and "a bug" in crashed.output
    (folder,) = Path("runs").glob("*/*")
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
