"""Random numbers that depend on the step alone."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seeds all draws of a training step, such as those of dropout, from the run's seed, the batch and the process.

    So a run that goes on in the middle of an epoch draws what it would have drawn.

    Args:
        seed: The seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds the step."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        seed = ((self.seed * 1_000_003 + batches) * 1_009 + trainer.global_rank) % 2**63
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
