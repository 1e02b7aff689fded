"""The base of all data sets: parts that are read as whole batches, in an order that can go on."""

import inspect
from typing import Any, ClassVar, TypeVar

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from lightning_cnn.datamodules.batches import BatchSampler, OrderedBatchSampler, batch_loader
from lightning_cnn.errors import check
from lightning_cnn.options import FACTS, merged_signature, plain

Kind = TypeVar("Kind")


class DataModule(LightningDataModule):
    """Data in parts such as `train`, `val` and `test`, of which a subclass makes the data sets in `setup`.

    A subclass passes `**options` on to its base, whose arguments it thus has, in its signature, too. Options that it
    sets itself in this call stand in `fixed`. All arguments are hyperparameters, as plain data.

    Args:
        batch_size: Examples in a batch, over all processes together.

    Attributes:
        default_model: Name of the module that learns from such data where no other is named.
        label_kind: What the labels are, such as `boxes`: that of a task that learns from such data.
        fixed: Options of the bases that the class does not take.
        stages: The parts that there are, besides the validation.
        batches_per_load: Training batches that the loader gives at once; a module may ask for more.

    Raises:
        UserError: If a value lies outside its range, or is no plain data.
    """

    default_model: ClassVar[str] = "ImageClassifier"
    label_kind: ClassVar[str] = ""
    fixed: ClassVar[tuple[str, ...]] = ()
    stages: tuple[str, ...] = ("train", "test")
    batches_per_load = 1
    on_device = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Completes the signature by the options of the bases."""
        super().__init_subclass__(**arguments)
        cls.__signature__ = merged_signature(cls)  # type: ignore[attr-defined]

    def __init__(self, batch_size: int = 128) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # those of the subclasses, too
        own = inspect.signature(type(self)).parameters
        for name, value in [*self.hparams.items()]:
            if name in own or name.startswith("_"):
                self.hparams[name] = plain(f"data.{name}", value)
            else:  # what a subclass sets itself
                del self.hparams[name]
        check("data.batch_size", batch_size, least=1)
        self.batch_size = batch_size
        self._sets: dict[str, Any] = {}
        self._seed = 0

    def facts(self) -> dict[str, Any]:
        """Arguments of a model that are set from the data, such as `num_classes`; known before any data is read."""
        return {name: getattr(self, name) for name in FACTS if hasattr(self, name)}

    def again(self, kind: type[Kind], **changes: Any) -> Kind:
        """A data module with the same options, as far as it takes them.

        Args:
            kind: Its class.
            changes: Options that differ.
        """
        names = inspect.signature(kind).parameters.keys() & self.hparams.keys()
        return kind(**{name: self.hparams[name] for name in names} | changes)

    def dataset(self, part: str) -> Any:
        """The examples of a part, as `setup` has read them."""
        return self._sets[part]

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training part, in a new random order each epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the validation part."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test part."""
        return self._loader("test")

    def ordered_batches(self, part: str) -> DataLoader[Any]:
        """Batches of a part, in the order of `dataset`."""
        return self._loader(part)

    def workers_for(self, dataset: Any) -> int:
        """Processes that read ahead: none for data in memory."""
        return 0

    def _draw_seed(self) -> None:
        """Takes the seed of the order, and of what is drawn in training, from that of the run."""
        self._seed = torch.initial_seed() % 2**31

    def _sample(self, count: int) -> torch.Tensor:
        """Positions of some training examples, evenly spread: where they lie class by class, all classes come."""
        length = len(self._sets["train"])
        return torch.linspace(0, length - 1, min(count, length)).round().long()

    def _loader(self, part: str, shuffle: bool = False) -> DataLoader[Any]:
        trainer, dataset = self.trainer, self._sets[part]
        shuffle = shuffle and not (trainer and trainer.overfit_batches)  # type: ignore[attr-defined]
        sampler = (BatchSampler if shuffle else OrderedBatchSampler)(
            len(dataset),
            self.batch_size * (self.batches_per_load if shuffle else 1),
            shuffle,
            self._seed,
            trainer.global_rank if trainer else 0,
            trainer.world_size if trainer else 1,
        )
        pin_memory = trainer is not None and trainer.strategy.root_device.type == "cuda" and not self.on_device
        return batch_loader(dataset, sampler, self.workers_for(dataset), pin_memory)
