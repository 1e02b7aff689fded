"""Measures the training on one GPU, part by part, against plain loops; with `--smoke` the same code on a CPU, in short.

    python experiments/benchmarks/gpu.py --packed FOLDER --out gpu.json
    python experiments/benchmarks/gpu.py --smoke --out smoke.json

Each part is written to the JSON file when it is done, and is not measured again by the next call; a table in Markdown
lies beside it. No part begins after `--minutes`. `README.md` beside this file says what the script expects where.
"""

import argparse
import csv
import gzip
import json
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import timm
import torch
import yaml
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

import lightning_cnn.architectures  # noqa: F401  registers ours
from lightning_cnn.cli import main
from lightning_cnn.config.shipped import shipped_files
from lightning_cnn.datamodules import CIFAR10, MNIST, Digits, ImageDataModule
from lightning_cnn.datamodules.images.augmentation import Augmentation
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.throughput import Throughput

# dense bfloat16 operations a second, by what the device's name contains (the makers' data sheets)
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40": 181e12, "L4": 121e12}
Row = dict[str, Any]


class RandomImages(ImageDataModule):
    """Random tensors in memory, by the shape in the environment, for networks of any size."""

    num_classes, in_channels = 10, 3
    native_size, rows = (int(number) for number in os.environ.get("RANDOM_IMAGES", "32 40").split())
    class_names = tuple("0123456789")

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
        return ["--data", "CIFAR10", "--data.root", str(self.data)] if real else ["--data", "gpu.RandomImages"]

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


def mnist(bench: Bench) -> list[Row]:
    """(a) An epoch of LeNet5: the usual Lightning way, a plain loop, and ours."""
    data: ImageDataModule = Digits() if bench.smoke else MNIST(str(bench.data), normalize="unit")
    data.setup("fit")
    pixels, labels = data.dataset("train")[torch.arange(len(data.dataset("train")))]
    rows, side = len(labels), pixels.shape[-1]

    class Usual(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model("lenet5")

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = F.cross_entropy(self.network(batch[0]), batch[1])
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    loader = DataLoader(TensorDataset(pixels.float() / 255, labels), 256, shuffle=True, num_workers=2)
    trainer = pl.Trainer(
        accelerator=bench.device.type if bench.device.type == "cpu" else "gpu", devices=1, max_epochs=1, logger=False,
        callbacks=[Throughput()], enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        default_root_dir=bench.work,
    )  # fmt: skip
    trainer.fit(Usual(), loader)
    usual = float(trainer.callback_metrics["train/images_per_s"])
    words = ["--data", "Digits"] if bench.smoke else ["--data", "MNIST", "--data.root", str(bench.data)]
    found, _ = bench.ours(
        "fit", *words, "--data.batch_size", "256", "--data.on_device", "true", "--model.architecture", "lenet5",
        "--model.optimizer", "sgd", "--trainer.max_epochs", "2", "--trainer.precision", "bf16-mixed",
    )  # fmt: skip
    speed = plain(bench, "lenet5", side, 256, rows, None, channels=1)
    return [
        {"what": "MNIST, LeNet5, batch 256, usual Lightning", "images/s": usual},
        {"what": "MNIST, LeNet5, batch 256, plain loop", "images/s": speed},
        {
            "what": "MNIST, LeNet5, batch 256, ours",
            "images/s": found["train/images_per_s"],
            "of plain": found["train/images_per_s"] / speed,
        },
    ]


def cifar_fast(bench: Bench) -> list[Row]:
    """(b) CIFAR-10 from data in memory to the tested accuracy: ours, and a plain loop with the same network."""
    data, found = bench.cifar(), []
    for name in ("cifar10_fast", "cifar10_fast_96"):
        settings = yaml.safe_load(shipped_files()[name].read_text())
        size, epochs = settings["data"]["init_args"]["batch_size"], settings["trainer"]["max_epochs"]
        if bench.smoke:
            size, epochs = 16, 1
        metrics, seconds = bench.ours(
            "train", "--config", name, *bench.words(), "--data.batch_size", str(size),
            "--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs),
            "--model.compile", str(not bench.smoke).lower(),
        )  # fmt: skip
        took, accuracy = plain_cifar(bench, data, settings, size, epochs)
        learned = bench.epoch_seconds(len(data.dataset("train"))) * epochs
        row = {"what": name, "test accuracy": metrics["test/acc"], "epochs": epochs, "seconds of training": learned}
        plain_row = {"test accuracy": accuracy, "epochs": epochs, "seconds of training": took}
        found += [row | {"seconds of the run": seconds}, {"what": f"{name}, plain loop", **plain_row}]
    return found


def plain_cifar(bench: Bench, data: ImageDataModule, settings: Row, size: int, epochs: int) -> tuple[float, float]:
    """Seconds without compiling, and test accuracy, of a plain loop with the settings of an experiment."""
    torch.compiler.reset()
    model = settings["model"]
    parts = {}
    for part in ("train", "test"):
        pixels, labels = data.dataset(part)[torch.arange(len(data.dataset(part)))]
        parts[part] = pixels.to(bench.device), labels.to(bench.device)
    (pixels, labels), (tests, answers) = parts["train"], parts["test"]
    mean, std = (
        (pixels.float() / 255).mean((0, 2, 3), keepdim=True),
        (pixels.float() / 255).std((0, 2, 3), keepdim=True),
    )
    network = timm.create_model(model["architecture"]).to(bench.device, memory_format=torch.channels_last)
    network.init_from_images((pixels[:5000].float() / 255 - mean) / std)
    optimizer = create_optimizer_v2(
        network, opt=model["optimizer"], lr=model["lr"], momentum=model["momentum"],
        weight_decay=model["weight_decay"], **model.get("optimizer_options", {"fused": True}),
    )  # fmt: skip
    steps = max(1, len(labels) // size) * epochs
    warm = round(steps * model["warmup_epochs"] / settings["trainer"]["max_epochs"]) or 1
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: min((at + 1) / warm, (steps - at) / steps))
    augmentation = Augmentation(**settings["data"]["init_args"]["augment"])
    generator = torch.Generator(bench.device).manual_seed(0)
    if not bench.smoke:
        network.compile(dynamic=False)
    step = step_of(network, optimizer, bench.device, model["label_smoothing"])
    state = {name: value.clone() for name, value in network.state_dict().items()}
    images = (pixels[:size].float() / 255 - mean) / std
    for epoch in {0, epochs - 1}:  # compiles for each size of images
        step(augmentation.shrink(images, epoch).contiguous(memory_format=torch.channels_last), labels[:size])
    network.load_state_dict(state)
    optimizer.state.clear()
    start = bench.synchronize()
    for epoch in range(epochs):
        for index in torch.randperm(len(labels), device=bench.device).split(size)[: max(1, len(labels) // size)]:
            changed = (augmentation.change(pixels[index], generator, epoch, 0) - mean) / std
            changed = augmentation.shrink(changed, epoch).contiguous(memory_format=torch.channels_last)
            step(changed, labels[index])
            schedule.step()
    took = bench.synchronize() - start
    network.eval()
    right = 0
    with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16):
        for index in torch.arange(len(answers), device=bench.device).split(size):
            seen = ((tests[index].float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            right += int(((network(seen) + network(seen.flip(-1))).argmax(1) == answers[index]).sum())
    return took, right / len(answers)


def resnets(bench: Bench) -> list[Row]:
    """(c) Images a second of ResNet-18 at 32 pixels and ResNet-50 at 224, against a hand-written loop."""
    found = []
    cases = (
        [("resnet18", 32, 8, 16)] if bench.smoke else [("resnet18", 32, 1024, 51_200), ("resnet50", 224, 256, 7_680)]
    )
    for name, side, batch, rows in cases:
        speed = plain(bench, name, side, batch, rows, None)
        os.environ["RANDOM_IMAGES"] = f"{side} {int(rows / 0.98)}"
        sys.modules.pop("gpu", None)
        metrics, _ = bench.ours(
            "fit", "--data", "gpu.RandomImages", "--data.batch_size", str(batch), "--data.on_device", "true",
            "--data.val_fraction", "0.02", "--data.normalize", "unit", "--model.architecture", name,
            "--model.optimizer", "sgd", "--model.lr", "0.01", "--model.channels_last", "true",
            "--trainer.max_epochs", "2", "--trainer.precision", "bf16-mixed",
        )  # fmt: skip
        with FlopCounterMode(display=False) as counter:
            timm.create_model(name, num_classes=10).eval()(torch.zeros(1, 3, side, side))
        ours = metrics["train/images_per_s"]
        row: Row = {"what": f"{name} at {side} pixels, batch {batch}", "images/s": ours, "of plain": ours / speed}
        if (peak := peak_of(bench.device)) is not None:
            row["share of peak"] = 3 * counter.get_total_flops() * ours / peak
        found += [row, {"what": f"{row['what']}, plain loop", "images/s": speed}]
    return found


def alexnet(bench: Bench) -> list[Row]:
    """(d) AlexNet for CIFAR-10: 20 epochs; the book's took 8 to 10 minutes."""
    epochs = 1 if bench.smoke else 20
    short = ["--data.batch_size", "16", "--trainer.limit_train_batches", "1"] if bench.smoke else []
    metrics, seconds = bench.ours(
        "train", "--config", "cifar10_alexnet_corrected", *bench.words(), "--data.on_device", "true",
        "--trainer.max_epochs", str(epochs), "--trainer.precision", "bf16-mixed", "--model.channels_last", "true",
        *short,
    )  # fmt: skip
    return [{"what": f"AlexNet for CIFAR, {epochs} epochs", "seconds": seconds, "test accuracy": metrics["test/acc"]}]


def returns(bench: Bench) -> list[Row]:
    """(e) The book's network of returns, 20 epochs, on real prices where they are there."""
    (prices,) = [*bench.data.glob("*.parquet"), None][:1]
    words = ["--data", "MonthlyReturns", "--data.prices", str(prices)] if prices and not bench.smoke else []
    words = words or ["--data", "SyntheticReturns", *(["--data.stocks", "5"] if bench.smoke else [])]
    epochs = 1 if bench.smoke else 20
    metrics, seconds = bench.ours(
        "train", *words, "--data.batch_size", "1024", "--model.architecture", "returns_cnn",
        "--model.optimizer", "adam", "--model.lr", "0.004", "--trainer.max_epochs", str(epochs),
    )  # fmt: skip
    return [{"what": f"returns, {epochs} epochs, batch 1,024", "seconds": seconds, "test AUC": metrics["test/auc"]}]


def resumption(bench: Bench) -> list[Row]:
    """(f) A run that was broken off and resumed ends as an unbroken one, bit for bit."""
    words = [
        "fit", "--data", "Digits", "--data.batch_size", "64", "--model.architecture", "cnn3",
        "--trainer.max_epochs", "2", "--trainer.deterministic", "true", "--checkpoint.every_n_steps", "5",
    ]  # fmt: skip
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    states = []
    for broken in (False, True):
        try:
            bench.ours(
                *words, *(["--trainer.callbacks+=gpu.Crash", "--trainer.callbacks.batch", "28"] if broken else [])
            )
        except RuntimeError as error:
            if "pulled the plug" not in str(error):
                raise
            (folder,) = (path.parent for path in (bench.work / "runs").glob("*/*/run.json"))
            with redirect_stdout(StringIO()):
                resume = ["fit", "--resume", folder.name, "--runs_dir", str(bench.work / "runs")]
                if main([*resume, "--trainer.callbacks", "null"]) != 0:
                    raise RuntimeError("the run could not be resumed") from None
        (last,) = (bench.work / "runs").glob("*/*/checkpoints/last.ckpt")
        states.append(torch.load(last, map_location="cpu", weights_only=True)["state_dict"])
    same = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return [{"what": "broken off at step 28 and resumed", "equal": same}]


def processes(bench: Bench) -> list[Row]:
    """(g) Two processes: on two GPUs with nccl, on the CPU with gloo; Lightning starts no two on one GPU."""
    count = torch.cuda.device_count()
    if bench.device.type == "cuda" and count < 2:
        return [
            {"what": "two processes", "not measured": "Lightning gives each process a GPU of its own; there is one"}
        ]
    words = ["--data", "Digits", "--data.batch_size", "64", "--model.architecture", "cnn3", "--trainer.max_epochs", "1"]
    code = os.spawnv(  # of their own: the processes that Lightning starts repeat the command
        os.P_WAIT, sys.executable,
        [sys.executable, "-m", "lightning_cnn", "fit", *words, "--trainer.devices", "2", "--trainer.strategy", "ddp",
         "--trainer.accelerator", "gpu" if count > 1 else "cpu", "--runs_dir", str(bench.work / "two")],
    )  # fmt: skip
    return [{"what": "two processes", "exit code": code}]


def compiling(bench: Bench) -> list[Row]:
    """(h) torch.compile and CUDA graphs on and off, how often a step waits for the GPU, and memory."""
    batch, rows = (8, 16) if bench.smoke else (512, 25_600)
    found: list[Row] = []
    for mode in (None,) if bench.smoke else (None, "default", "reduce-overhead"):
        speed = plain(bench, "resnet18", 32, batch, rows, mode)
        found.append({"what": f"resnet18 at 32 pixels, plain loop, compile {mode or 'off'}", "images/s": speed})
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    os.environ["RANDOM_IMAGES"] = f"32 {rows}"
    sys.modules.pop("gpu", None)
    metrics, _ = bench.ours(
        "fit", "--data", "gpu.RandomImages", "--data.batch_size", str(batch), "--data.on_device", "true",
        "--model.architecture", "resnet18", "--trainer.max_epochs", "1", "--trainer.precision", "bf16-mixed",
        "--trainer.log_every_n_steps", "1000", "--trainer.callbacks+=gpu.Waits",
    )  # fmt: skip
    import gpu

    counts = gpu.Waits.counts[2:] or [0]  # the first two are warm-up
    peak = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else metrics["train/memory_gib"]
    return [*found, {"what": "resnet18, ours: waits a step", "median": statistics.median(counts), "memory, GiB": peak}]


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "mnist": mnist, "cifar_fast": cifar_fast, "resnets": resnets, "alexnet": alexnet, "returns": returns,
    "resumption": resumption, "processes": processes, "compiling": compiling,
}  # fmt: skip


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


def table(found: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        f"{found['device']}, torch {found['torch']}, Lightning {found['lightning']}\n",
        "| part | what | found |",
        "|---|---|---|",
    ]
    for part, rows in found["parts"].items():
        for row in rows:
            values = [
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            ]
            lines.append(f"| {part} | {row['what']} | {', '.join(values[1:])} |")
    return "\n".join(lines) + "\n"


def run() -> int:
    """Measures the parts that are asked for and not yet measured."""
    parser = argparse.ArgumentParser(description="Measures the training on one GPU, against plain loops.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with MNIST/raw, CIFAR-10 and prices")
    parser.add_argument("--packed", type=Path, help="folder with packed data, which are unpacked into --data")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file of the results")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS], help="what to measure")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part begins after so many minutes")
    parser.add_argument("--smoke", action="store_true", help="try the script on a CPU, with little of everything")
    options = parser.parse_args()
    begin = time.monotonic()
    if not options.smoke and not torch.cuda.is_available():
        print("error: there is no GPU; --smoke tries the script on the CPU", file=sys.stderr)
        return 2
    os.environ["WANDB_MODE"] = "offline"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.packed:
        unpack(options.packed, options.data)
    device = torch.device("cpu" if options.smoke else "cuda")
    bench = Bench(device, options.smoke, options.data.absolute())
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({platform.machine()}), a trial"
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"parts": {}}
    found |= {"device": name, "torch": torch.__version__, "lightning": version("pytorch-lightning")}
    failed = False
    for part in options.parts:
        if part in found["parts"] or time.monotonic() - begin > 60 * options.minutes:
            continue
        start = time.monotonic()
        try:
            found["parts"][part] = PARTS[part](bench)
        except Exception:  # the other parts are worth measuring all the same
            failed = True
            traceback.print_exc()
            continue
        options.out.write_text(json.dumps(found, indent=1))
        options.out.with_suffix(".md").write_text(table(found))
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
    shutil.rmtree(bench.work, ignore_errors=True)
    print(table(found))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run())
