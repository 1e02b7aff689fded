"""The parts of the benchmark on a GPU: each trains, and returns rows of what it measured."""

import os
import statistics
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytorch_lightning as pl
import timm
import torch
import yaml
from gpu_bench import Bench, Row, Waits, peak_of, plain, step_of
from timm.optim import create_optimizer_v2
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from lightning_cnn.cli import main
from lightning_cnn.config.shipped import shipped_files
from lightning_cnn.datamodules import MNIST, Digits, ImageDataModule
from lightning_cnn.datamodules.images.augmentation import Augmentation
from lightning_cnn.tracking.throughput import Throughput


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
    network = timm.create_model(model["architecture"], **model.get("architecture_options", {}))
    network.to(bench.device, memory_format=torch.channels_last)
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
        metrics, _ = bench.ours(
            "fit", "--data", "gpu_bench.RandomImages", "--data.side", str(side), "--data.rows", str(int(rows / 0.98)),
            "--data.batch_size", str(batch), "--data.on_device", "true",
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
                *words, *(["--trainer.callbacks+=gpu_bench.Crash", "--trainer.callbacks.batch", "28"] if broken else [])
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
    metrics, _ = bench.ours(
        "fit", "--data", "gpu_bench.RandomImages", "--data.rows", str(rows),
        "--data.batch_size", str(batch), "--data.on_device", "true",
        "--model.architecture", "resnet18", "--trainer.max_epochs", "1", "--trainer.precision", "bf16-mixed",
        "--trainer.log_every_n_steps", "1000", "--trainer.callbacks+=gpu_bench.Waits",
    )  # fmt: skip
    counts = Waits.counts[2:] or [0]  # the first two are warm-up
    peak = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else metrics["train/memory_gib"]
    return [*found, {"what": "resnet18, ours: waits a step", "median": statistics.median(counts), "memory, GiB": peak}]


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "mnist": mnist, "cifar_fast": cifar_fast, "resnets": resnets, "alexnet": alexnet, "returns": returns,
    "resumption": resumption, "processes": processes, "compiling": compiling,
}  # fmt: skip
