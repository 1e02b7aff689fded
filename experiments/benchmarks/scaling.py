"""One process and several on one machine: images a second, and the memory of each with the images held once or not.

Each process has one thread. The images are random, `--images` of them with 3x32x32 bytes.

    uv run experiments/benchmarks/scaling.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cnn.datamodules import ImageDataModule
from lightning_cnn.datamodules.images import base as image_datamodule

WARM_UP = 5  # batches before the clock starts


class ManyImages(ImageDataModule):
    """Random images.

    Args:
        images: Number of them.
        batch_size: Images in a batch, over all processes together.
        shared: Whether the processes hold them once, together, as they usually do.
    """

    num_classes = 10
    in_channels = 3
    native_size = 32
    class_names = tuple("0123456789")
    stages = ("train",)

    def __init__(self, images: int = 60000, batch_size: int = 128, shared: bool = True) -> None:
        super().__init__(batch_size=batch_size, normalize="unit")
        self.images = images
        image_datamodule.IS_POSSIBLE &= shared  # type: ignore[attr-defined]

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draws them."""
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (self.images, 3, 32, 32), dtype=torch.uint8, generator=draw)
        return images, torch.randint(0, 10, (self.images,), generator=draw)


class Measure(Callback):
    """Writes images a second and the memory of its process into `<rank>.json`."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the clock."""
        if batch_idx == WARM_UP:
            self._start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops it, and looks at the memory: what is the process's own, and that with its share of what is shared."""
        seconds = time.perf_counter() - self._start
        images = trainer.datamodule.batch_size * (trainer.num_training_batches - WARM_UP)  # type: ignore[attr-defined]
        memory = psutil.Process().memory_full_info()
        found = {"images_per_s": images / seconds, "own": memory.uss / 2**20, "with_share": memory.pss / 2**20}
        Path(f"{trainer.global_rank}.json").write_text(json.dumps(found))


def measure(processes: int, shared: bool, options: argparse.Namespace) -> list[dict[str, float]]:
    """Trains for some batches; what each process has measured."""
    words = [sys.executable, "-m", "lightning_cnn", "fit", "--data", "scaling.ManyImages", "--wandb", "disabled"]
    words += ["--data.images", str(options.images), "--data.shared", str(shared).lower()]
    words += ["--data.batch_size", str(options.batch_size), "--model.architecture", options.architecture]
    words += ["--trainer.limit_train_batches", str(options.batches + WARM_UP), "--trainer.limit_val_batches", "0"]
    words += ["--checkpoint.monitor", "train/loss"]
    words += ["--trainer.max_epochs", "1", "--trainer.callbacks+=scaling.Measure", "--trainer.accelerator", "cpu"]
    words += ["--trainer.devices", str(processes), "--trainer.strategy", "ddp" if processes > 1 else "auto"]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(processes)]


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--architecture", default="resnet20_cifar")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    options = parser.parse_args()
    print(f"{options.architecture}, {options.images:,} images ({options.images * 3072 / 2**20:.0f} MiB)")
    print("processes  images  images/s  MiB of each alone        MiB of each with its share")
    for processes in options.processes:
        for shared in (True, False) if processes > 1 else (False,):
            runs = [measure(processes, shared, options) for _ in range(options.repeats)]
            fastest = max(run[0]["images_per_s"] for run in runs)
            own, whole = (" ".join(f"{rank[name]:.0f}" for rank in runs[-1]) for name in ("own", "with_share"))
            print(f"{processes:>9}  {'shared' if shared else 'own':6}  {fastest:8.0f}  {own:23}  {whole}", flush=True)


if __name__ == "__main__":
    main()
