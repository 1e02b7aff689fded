"""Speed, memory and gradient norm of the training."""

import time
from typing import Any, ClassVar

import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_cnn.evaluation.directions import Better


def count_images(batch: Any) -> int:
    """Images in a batch `(images, labels)`; also for the `batch_size_fn` of Lightning's ThroughputMonitor."""
    return len(batch[0]) if isinstance(batch, list | tuple) else len(batch)


class Throughput(Callback):
    """Logs `train/grad_norm` (before clipping), and each epoch `train/images_per_s` and `train/memory_gib`.

    Images count over all processes, without the time of validations. Memory is the peak of this training on the GPU,
    or what the process holds where it computes on the CPU.
    """

    better: ClassVar[Better] = {"train/images_per_s": "max", "train/memory_gib": "min", "train/grad_norm": None}

    def __init__(self) -> None:
        self._start = self._end = self._paused = self._validated = 0.0
        self._images = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the peak memory of what the process did before."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start = self._end = time.perf_counter()
        self._validated = 0.0
        self._images = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any) -> None:
        """Counts images."""
        self._images += count_images(batch)
        self._start += self._validated  # since the batch before
        self._validated, self._end = 0.0, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on with it."""
        self._validated += time.perf_counter() - self._paused

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Logs the norm of all gradients together, on the steps that are logged."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs speed and memory."""
        rate = self._images / max(self._end - self._start, 1e-9)
        device = pl_module.device
        cuda = device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(device) if cuda else psutil.Process().memory_info().rss
        pl_module.log("train/images_per_s", rate, sync_dist=True, reduce_fx="sum")
        pl_module.log("train/memory_gib", memory / 2**30, sync_dist=True, reduce_fx="max")
