"""Several processes: the numbers of one, images held once, and none that waits for ever for another."""

import json
import os
import re
import signal
import struct
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from run_folders import only_run, record
from small_data import write_image_folder, write_mnist
from trainings import train

from lightning_cnn.cli import main
from lightning_cnn.datamodules import ImageDataModule

pytestmark = pytest.mark.first
QUIET = ["--wandb", "disabled", "--trainer.enable_model_summary", "false", "--trainer.accelerator", "cpu"]


LOOPBACK = f"{struct.unpack('=I', bytes([127, 0, 0, 1]))[0]:08X}:"  # as the kernel writes 127.0.0.1


def on(ranks: int) -> list[str]:
    return ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp" if ranks > 1 else "auto"]


def listening() -> list[str]:
    """The addresses at which this process listens, as the kernel writes them."""
    targets = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in targets]


class Notes(Callback):
    """Notes the measures in full, where each process has its images, and where it listens."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        first = data.dataset("val").dataset.images.data_ptr()  # type: ignore[attr-defined]
        for line in Path("/proc/self/maps").read_text().splitlines():
            low, high, name = re.match(r"(\w+)-(\w+) \S+ \S+ \S+ (.*)", line).groups()  # type: ignore[union-attr]
            if int(low, 16) <= first < int(high, 16):
                break
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        notes = {"values": values, "memory": " ".join(name.split()), "listening": listening()}
        Path(f"notes_{trainer.world_size}_{trainer.global_rank}.json").write_text(json.dumps(notes))


@pytest.mark.parametrize("data", ["MNIST", "ImageFolder"])
def test_measures_are_exact(data: str, tmp_path: Path) -> None:
    """On 1, 2 and 4 processes, on 43 images, which no number of processes divides; and all see the same memory."""
    write_mnist(tmp_path / "data", data, train=213, test=101)
    write_image_folder(tmp_path / "data", count=24)
    words = ["fit", "--data", data, *QUIET, "--trainer.max_epochs", "1", "--data.batch_size", "16"]
    if data == "ImageFolder":
        words += ["--data.image_size", "28", "--data.val_fraction", "0.59"]
    assert main(words) == 0
    checkpoint = str(only_run() / "checkpoints" / "best.ckpt")
    noting = ["--trainer.callbacks+=test_processes.Notes", *QUIET[4:], "--data.batch_size", "12"]
    for ranks in (1, 2, 4) if data == "MNIST" else (1, 2):
        done = train(["validate", "--ckpt_path", checkpoint, *noting, *on(ranks)], ranks)
        assert done.codes == [0] * ranks, done.output
    notes = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("notes_*.json")}
    one = notes["notes_1_0"]["values"]
    assert {"val/loss", "val/acc", "val/f1", "val/ece"} <= one.keys()
    for note in notes.values():
        assert note["values"] == pytest.approx(one, abs=1e-6)
    for ranks in (2, 4):
        places = {note["memory"] for name, note in notes.items() if name.startswith(f"notes_{ranks}")}
        assert all("/memfd:lightning_cnn" in place for place in places) and len(places) <= 1
    assert "memfd" not in notes["notes_1_0"]["memory"]
    assert notes["notes_1_0"]["listening"] == [] and len(notes["notes_2_0"]["listening"]) > 1
    for note in notes.values():
        assert all(address.startswith(LOOPBACK) for address in note["listening"])


RETURNS = ["SyntheticReturns", "--data.stocks", "21", "--data.months", "60", "--data.lags", "12", "--model.lr", "0.01"]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (["Digits"], ["acc", "f1", "ece"]),
        (RETURNS, ["acc", "auc", "auc_month", "ic", "up_rate"]),
    ],
    ids=lambda value: value[0],
)
def test_two_processes_equal_one(data: list[str], names: list[str], tmp_path: Path) -> None:
    """The training, too; one run folder, and one voice."""
    common = ["train", "--data", *data, "--data.batch_size", "16", "--trainer.max_epochs", "1", *QUIET]
    done = train([*common, "--experiment", "two", *on(2)], ranks=2)
    assert done.codes == [0, 0], done.output
    assert done.output.count("run folder") == done.output.count("Epoch 0: 100%") == 1
    assert main([*common, "--experiment", "one"]) == 0
    (one,), (two,) = Path("runs/one").iterdir(), Path("runs/two").iterdir()
    assert record(two)["device"].startswith("2 x cpu")
    for name in ("train/loss", *(f"{part}/{name}" for part in ("val", "test") for name in ("loss", *names))):
        assert record(two)["metrics"][name] == pytest.approx(record(one)["metrics"][name], abs=2e-3), name


@pytest.mark.ci
def test_a_stuck_process_is_named(tmp_path: Path) -> None:
    """The others do not wait for it for ever."""
    words = ["fit", "--data", "Digits", "--trainer.max_epochs", "500", "--timeout_minutes", "0.4", *QUIET, *on(2)]
    folder = tmp_path / "runs" / "stuck"
    done = train(
        words, 2, signal.SIGSTOP, folder / "checkpoints" / "last.ckpt", [1], {"LIGHTNING_CNN_RUN": str(folder)}
    )
    assert not done.hung and done.codes == [1, -signal.SIGKILL], done.output
    assert record(folder)["status"] == "failed"
    assert "does not respond" in record(folder)["error"] and "Ranks 1" in record(folder)["error"]
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] >= 0
