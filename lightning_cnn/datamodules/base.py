"""Base class of all data modules: parts that are read as whole batches, in a resumable order."""

import inspect
from typing import Any, ClassVar, TypeVar

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from lightning_cnn.datamodules.batches import BatchSampler, OrderedBatchSampler, batch_loader
from lightning_cnn.errors import check, require
from lightning_cnn.options import FACTS, merged_signature, plain

Kind = TypeVar("Kind")


class DataModule(LightningDataModule):
    """Base class of data modules with parts such as `train`, `val` and `test`.

    A subclass makes the data sets in `setup`. It passes `**options` to its base, and so inherits the arguments, also
    in its signature; `fixed` lists those that it sets itself. All arguments are hyperparameters of plain data.

    Args:
        batch_size: Examples per batch, over all processes together.

    Attributes:
        default_model: Name of the default task for these data.
        label_kind: Kind of the labels, such as `boxes`; a task must have the same.
        fixed: Options of the bases that the class does not accept.
        extra_needed: Extra of the package that it needs, such as `returns`; empty for none.
        stages: Available parts, except for validation.

    Raises:
        UserError: If a value lies outside its range or is no plain data, or the extra is not installed.
    """

    default_model: ClassVar[str] = "ImageClassifier"
    label_kind: ClassVar[str] = ""
    fixed: ClassVar[tuple[str, ...]] = ()
    extra_needed: ClassVar[str] = ""
    stages: tuple[str, ...] = ("train", "test")
    on_device = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Completes the signature by the options of the bases."""
        super().__init_subclass__(**arguments)
        cls.__signature__ = merged_signature(cls)  # type: ignore[attr-defined]

    def __init__(self, batch_size: int = 128) -> None:
        if self.extra_needed:
            require(self.extra_needed, type(self).__name__)
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

    def _seed_of_run(self) -> None:
        """Takes the seeds of the order and of augmentation from that of the run."""
        self._seed = torch.initial_seed() % 2**31

    def _sample(self, count: int) -> torch.Tensor:
        """Positions of some training examples, evenly spread: where they lie class by class, all classes come."""
        length = len(self._sets["train"])
        return torch.linspace(0, length - 1, min(count, length)).round().long()

    def _loader(self, part: str, shuffle: bool = False) -> DataLoader[Any]:
        trainer, dataset = self.trainer, self._sets[part]
        mixed = shuffle and not (trainer and trainer.overfit_batches)  # type: ignore[attr-defined]
        sampler = self.make_sampler(
            part,
            shuffle,
            batch_size=self.batch_size,
            shuffle=mixed,
            seed=self._seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        pin_memory = trainer is not None and trainer.strategy.root_device.type == "cuda" and not self.on_device
        return batch_loader(dataset, sampler, self.workers_for(dataset), pin_memory)

    def make_sampler(self, part: str, trains: bool, **options: Any) -> BatchSampler:
        """The order in which a loader reads a part.

        Args:
            part: Name of the part.
            trains: Whether the batches are for training.
            **options: Arguments of `BatchSampler`.
        """
        kind = BatchSampler if options["shuffle"] else OrderedBatchSampler
        return kind(len(self._sets[part]), **options)
