"""Keeps chatter of the libraries off the terminal; anything that says something about the run stays."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = (
    "GPU available", "TPU available", "HPU available", "💡 Tip", "Seed set to", "`Trainer.fit` stopped",
    "Loading `train_dataloader` to estimate", "Restoring states from", "Restored all states from",
    "Loaded model weights from", "You are using a CUDA device", "LOCAL_RANK: ", "----------",
    "distributed_backend=", "All distributed processes registered", "Initializing distributed",
    "Using bfloat16 Automatic Mixed Precision", "Using 16bit Automatic Mixed Precision", "`weights_only` was not set",
)  # fmt: skip
WARNINGS = (
    ".*does not have many workers.*",  # images in memory need none
    r".*isinstance\(treespec, LeafSpec\).*",
    ".*Checkpoint directory .* exists and is not empty.*",  # that of a resumed run
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*using the WeightAveraging callback, but loading a checkpoint outside.*",  # the test measures the average
    ".*callbacks used to create the checkpoint need to be provided.*",  # a test needs none of them
    ".*does not define a `state_dict`.*",
    ".*Checkpoint .* was saved with mid-epoch.*",
    ".*resuming from a checkpoint that ended before the epoch ended.*",  # ours are resumable
    ".*`srun` command is available on your system but is not used.*",
)


LOGGERS = tuple(map(logging.getLogger, ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")))
FURTHER = tuple(map(logging.getLogger, ("lightning_fabric.utilities.seed", "pytorch_lightning.utilities.rank_zero")))


def be_quiet() -> None:
    """Installs the filters; calling it again changes nothing."""
    for place in _places():
        place.addFilter(_wanted)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block Lightning says nothing but warnings; afterwards it is as talkative as before."""
    levels = [logger.level for logger in LOGGERS]
    with warnings.catch_warnings():
        for logger in LOGGERS:
            logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
        try:
            yield
        finally:
            for logger, level in zip(LOGGERS, levels, strict=True):
                logger.setLevel(level)
            for place in _places():
                place.removeFilter(_wanted)


def _places() -> list[logging.Filterer]:
    return [*FURTHER, *(handler for logger in LOGGERS for handler in logger.handlers)]


def _wanted(record: logging.LogRecord) -> bool:
    return not re.sub(r"^\[rank: \d+\] ", "", record.getMessage().lstrip()).startswith(CHATTER)
