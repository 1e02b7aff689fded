"""What happens around training."""

from lightning_cnn.callbacks.batch_size_finder import BatchSizeFinder
from lightning_cnn.callbacks.best_checkpoint import BestCheckpoint
from lightning_cnn.callbacks.figures import Figures
from lightning_cnn.callbacks.finite_loss import FiniteLoss
from lightning_cnn.callbacks.last_checkpoint import LastCheckpoint, ResumedEpoch
from lightning_cnn.callbacks.lr_finder import LearningRateFinder
from lightning_cnn.callbacks.monitors import Monitors
from lightning_cnn.callbacks.preemption import Preemption
from lightning_cnn.callbacks.progress import ProgressBar
from lightning_cnn.callbacks.pruning import Pruning
from lightning_cnn.callbacks.step_seed import StepSeed
from lightning_cnn.callbacks.vitals import Vitals

__all__ = [
    "BatchSizeFinder",
    "BestCheckpoint",
    "Figures",
    "FiniteLoss",
    "LastCheckpoint",
    "LearningRateFinder",
    "Monitors",
    "Preemption",
    "ProgressBar",
    "Pruning",
    "ResumedEpoch",
    "StepSeed",
    "Vitals",
]
