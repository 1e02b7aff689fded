"""Random numbers that depend on the step alone."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_cnn.resume.lightning_loops import batches_begun


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what a process draws in a training step.

    Args:
        seed: The seed of the run.
        step: Training batches since the start of the run, this one included.
        rank: The process.
    """
    return ((seed * 1_000_003 + step) * 1_009 + rank) % 2**63


class StepSeed(Callback):
    """Seeds all draws of a training step, such as those of dropout, from the run's seed, the batch and the process.

    So a run resumed in the middle of an epoch uses the random numbers of an unbroken run.

    Args:
        seed: The seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds the step."""
        seed = step_seed(self.seed, batches_begun(trainer), trainer.global_rank)
        # for CUDA, which has not begun on a CPU, `torch.manual_seed` would keep each seed with a stack trace
        seed_torch = torch.default_generator.manual_seed if pl_module.device.type == "cpu" else torch.manual_seed
        seed_torch(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
