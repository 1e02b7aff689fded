"""What the parts of the benchmark on a GPU share: where they measure, data, callbacks, and the loops of others."""

import csv
import gzip
import shutil
import statistics
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_cnn.architectures  # noqa: F401  registers ours
from lightning_cnn.cli import main
from lightning_cnn.datamodules import CIFAR10, ImageDataModule
from lightning_cnn.tracking.run import RunFolder

# dense bfloat16 operations a second, by what the device's name contains (the makers' data sheets)
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "L4": 121e12}
Row = dict[str, Any]


class RandomImages(ImageDataModule):
    """Random tensors in memory, for networks of any size.

    Args:
        side: Height and width in pixels.
        rows: How many there are.
        **settings: Those of all images.
    """

    num_classes, in_channels = 10, 3
    class_names = tuple("0123456789")

    def __init__(self, side: int = 32, rows: int = 40, **settings: Any) -> None:
        self.native_size, self.rows = side, rows
        super().__init__(**settings)

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Random images, and their labels."""
        rows, side = self.rows if train else 32, self.native_size
        generator = torch.Generator().manual_seed(int(train))
        images = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)
        return images, torch.arange(rows) % 10


class Crash(pl.Callback):
    """Breaks off at a batch, as a killed process does.

    Args:
        batch: Which one of all.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Raises at the batch."""
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            raise RuntimeError("pulled the plug")


class Waits(pl.Callback):
    """Counts how often the CPU waits for the GPU between two steps that are logged."""

    counts: ClassVar[list[int]] = []  # of each step of the last training

    def __init__(self) -> None:
        self._seen = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begins to listen."""
        Waits.counts.clear()
        self._show = warnings.showwarning
        warnings.showwarning = self._note
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_start(self, *_: Any) -> None:
        """Notes what is counted since the step before."""
        Waits.counts.append(self._seen)
        self._seen = 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Stops to listen."""
        warnings.showwarning = self._show
        warnings.simplefilter("ignore")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")

    def _note(self, message: Warning | str, *_: Any, **__: Any) -> None:
        self._seen += "synchroniz" in str(message)


@dataclass
class Bench:
    """What the parts share.

    Attributes:
        device: Where it is measured.
        smoke: Whether it is only a trial, on a CPU and with little of everything.
        data: The folder with MNIST/raw, the images of CIFAR-10, and prices.
    """

    device: torch.device
    smoke: bool
    data: Path
    work: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="gpu_benchmark_")))

    def cifar(self) -> ImageDataModule:
        """CIFAR-10 where it is there, else random images of its shape."""
        found: ImageDataModule = CIFAR10(str(self.data), normalize="unit", download=False)
        if self.smoke or (not found._holds_classes() and found._folder() is None):  # type: ignore[attr-defined]
            found = RandomImages(normalize="unit")
        found.setup("fit")
        found.setup("test")
        return found

    def words(self) -> list[str]:
        """The words for the data of CIFAR-10."""
        real = not isinstance(self.cifar(), RandomImages)
        return ["--data", "CIFAR10", "--data.root", str(self.data)] if real else ["--data", "gpu_bench.RandomImages"]

    def ours(self, *words: str) -> tuple[Row, float]:
        """Trains by the command; returns the metrics of the run, and its seconds from beginning to end."""
        torch.compiler.reset()
        shutil.rmtree(self.work / "runs", ignore_errors=True)
        device = ["--trainer.accelerator", self.device.type if self.device.type == "cpu" else "gpu"]
        more = ["--trainer.devices", "1"] if "--trainer.devices" not in words else []
        with redirect_stdout(StringIO()):
            code = main([*words, *device, *more, "--runs_dir", str(self.work / "runs")])
        if code != 0:
            raise RuntimeError(f"exit code {code}: lightning-cnn {' '.join(words)}")
        (file,) = (self.work / "runs").glob("*/*/run.json")
        record = RunFolder.open(file.parent).record
        return {**record.last, **record.metrics}, record.seconds

    def epoch_seconds(self, rows: int) -> float:
        """The median time of the training steps of an epoch in the last run, of so many images."""
        (file,) = (self.work / "runs").glob("*/*/metrics.csv")
        with file.open() as lines:
            speeds = [float(row["train/images_per_s"]) for row in csv.DictReader(lines) if row["train/images_per_s"]]
        return rows / statistics.median(speeds)

    def synchronize(self) -> float:
        """The time, when all that was asked for has been computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def step_of(
    network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, smoothing: float = 0.0
) -> Callable[[Tensor, Tensor], None]:
    """A training step in bfloat16 of a plain loop."""

    def step(images: Tensor, labels: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(network(images), labels, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def plain(bench: Bench, name: str, side: int, batch: int, rows: int, mode: str | None, channels: int = 3) -> float:
    """Images a second in a plain loop over random tensors on the device; `mode` is that of torch.compile."""
    torch.compiler.reset()
    network = timm.create_model(name, num_classes=10, in_chans=channels).to(bench.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, nesterov=True, fused=True)
    if mode is not None:
        network.compile(mode=mode, dynamic=False)
    step = step_of(network, optimizer, bench.device)
    pixels = torch.randint(0, 256, (rows, channels, side, side), dtype=torch.uint8, device=bench.device)
    labels = torch.arange(rows, device=bench.device) % 10
    start = 0.0
    for epoch in range(2):
        start = bench.synchronize()
        for index in torch.randperm(rows, device=bench.device).split(batch)[: rows // batch]:
            images = (pixels[index].float() / 255).contiguous(memory_format=torch.channels_last)
            step(images, labels[index])
            if epoch == 0 and mode is None:
                break
    return rows // batch * batch / (bench.synchronize() - start)


def peak_of(device: torch.device) -> float | None:
    """The operations that a GPU can do in a second in bfloat16; None of an unknown one."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def unpack(packed: Path, data: Path) -> None:
    """Unpacks MNIST's files and the joined pieces of CIFAR-10, and copies prices, where they are not yet."""
    raw = data / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for file in packed.glob("mnist/*.gz"):
        if not (raw / file.stem).exists():
            (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    if (pieces := sorted(packed.glob("cifar10.zip.*"))) and not (data / "train").is_dir():
        whole = data / "cifar10.zip"
        whole.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(data)
    for prices in packed.glob("*.parquet"):
        shutil.copy(prices, data)
