"""The base of all tasks whose network may start from pre-trained weights: frozen, staged, or trained as a whole."""

from collections.abc import Sequence
from typing import Any, Literal

from pytorch_lightning import Callback

from lightning_cnn.errors import UserError
from lightning_cnn.modules.base import Task
from lightning_cnn.modules.fine_tuning import FineTuning, divide


class TransferTask(Task):
    """Base class of tasks whose network may start from pre-trained weights.

    A subclass calls `prepare_transfer` when it has its network.

    Args:
        pretrained: Whether to start from timm's pre-trained weights (needs a network connection).
        transfer: Which layers are trained: `full`, all layers; `frozen`, the new ones only: the head of a classifier,
            the decoder and the head of a segmentation network, all but the backbone of a detector; `staged`, first
            these, then also the layers from `unfreeze_from` on.
        unfreeze_from: First layer that `staged` unfreezes, such as `layer4`; default all layers.
        unfreeze_epoch: Epoch, counted from 0, in which `staged` unfreezes them.
        unfreeze_lr: Learning rate of the unfrozen layers; default a tenth of `lr`.

    Raises:
        UserError: If the options contradict each other, or there is no such layer.
    """

    _fine_tuning: FineTuning | None = None

    def __init__(
        self,
        *,
        pretrained: bool = False,
        transfer: Literal["full", "frozen", "staged"] = "full",
        unfreeze_from: str | None = None,
        unfreeze_epoch: int = 3,
        unfreeze_lr: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if unfreeze_from is not None and transfer != "staged":
            raise UserError(f"`model.unfreeze_from` {unfreeze_from} requires `model.transfer` staged: add it")

    def prepare_transfer(self) -> None:
        """Divides the network into what learns from the start, later, and never."""
        hparams = self.hparams
        if hparams["transfer"] != "full":
            later = (hparams["unfreeze_from"] or "") if hparams["transfer"] == "staged" else None
            self._fine_tuning = FineTuning(later, hparams["unfreeze_epoch"])
            self._parts = divide(self.network, later)

    def configure_callbacks(self) -> list[Callback]:
        """The callback that freezes and unfreezes layers, if `transfer` requires one."""
        return [] if self._fine_tuning is None else [self._fine_tuning]

    @property
    def has_random_weights(self) -> bool:
        """Whether the network was made with random weights."""
        return not self.hparams["pretrained"] and self.starting_weights is None

    @property
    def is_fresh(self) -> bool:
        """Whether the training begins with random weights."""
        return self.has_random_weights and self.trainer.ckpt_path is None  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Refuses to freeze layers with random weights.

        Raises:
            UserError: If it would.
        """
        if self.trainer.ckpt_path is None:  # type: ignore[attr-defined]
            self.check_transfer()

    def check_transfer(self) -> None:
        """Refuses to freeze layers with random weights, where no checkpoint gives them others.

        Raises:
            UserError: If it would.
        """
        if self._fine_tuning and self.has_random_weights:
            raise UserError(
                f"`model.transfer` {self.hparams['transfer']} freezes layers with random weights: add "
                "`model.pretrained` true or `model.weights` FILE"
            )

    def names_of(self, data: Any) -> Sequence[str]:
        """The names of the classes that the data have, or of their numbers; else positions."""
        names: Sequence[str] = getattr(data, "class_names", ())
        return names or [str(number) for number in range(self.hparams["num_classes"])]
