"""What happens around training."""

from lightning_cnn.engine.finders.batch_size import BatchSizeFinder
from lightning_cnn.engine.finders.learning_rate import LearningRateFinder
from lightning_cnn.engine.finite_loss import FiniteLoss
from lightning_cnn.engine.sweep.pruning import Pruning
from lightning_cnn.figures.callback import Figures
from lightning_cnn.resume.best_checkpoint import BestCheckpoint
from lightning_cnn.resume.last_checkpoint import LastCheckpoint, ResumedEpoch
from lightning_cnn.resume.preemption import Preemption
from lightning_cnn.resume.step_seed import StepSeed
from lightning_cnn.tracking.monitors import Monitors
from lightning_cnn.tracking.progress import ProgressBar
from lightning_cnn.tracking.throughput import Vitals

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
