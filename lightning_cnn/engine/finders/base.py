"""What the finders have in common: each chooses one setting before a training begins."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder

# Lightning's own of the same names: they search within the training, and change what it learns
LIGHTNING_FINDERS = (LearningRateFinder, BatchSizeFinder)


class Attempt(NamedTuple):
    """A training to try a setting on, which is thrown away.

    Attributes:
        model: Its model.
        data: Its data.
        trainer: Makes a trainer of the configuration from callbacks and further arguments; it logs and keeps nothing.
        fit: Trains with that trainer.
    """

    model: LightningModule
    data: LightningDataModule
    trainer: Callable[..., Trainer]
    fit: Callable[[Trainer], None]


@dataclass(frozen=True)
class Found:
    """What a finder has found.

    Attributes:
        value: The value of the setting.
        reason: How it was chosen, in words.
        figure: A picture of the search, if there is one.
    """

    value: float | int
    reason: str
    figure: Figure | None = None


class Finder(Callback):
    """Chooses a setting before the training begins; in the training itself it takes no part.

    Attributes:
        setting: The setting, as named on the command line without dashes.
        figure_name: Name of the picture in `figures/`.
    """

    setting: str
    figure_name = ""

    def find(self, attempt: Attempt, present: Any) -> Found:
        """Chooses the value.

        Args:
            attempt: A training to try it on.
            present: The value in the configuration.

        Raises:
            UserError: If there is nothing to choose.
        """
        raise NotImplementedError
