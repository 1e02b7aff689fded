"""What happens around training."""

from lightning_cnn.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lightning_cnn.callbacks.figures import Figures
from lightning_cnn.callbacks.finite_loss import FiniteLoss
from lightning_cnn.callbacks.progress import ProgressBar
from lightning_cnn.callbacks.vitals import Vitals

__all__ = ["BestCheckpoint", "Figures", "FiniteLoss", "LastCheckpoint", "ProgressBar", "Vitals"]
