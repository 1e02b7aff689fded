"""Transfer learning: which layers of a pre-trained network learn, and when."""

from collections.abc import Iterator
from typing import NamedTuple

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BaseFinetuning
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.optim import Optimizer

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.modules.pretrained import classifiers

BODIES = ("body", "stages", "features")  # what the pre-trained part of a detector's backbone is called


class Parts(NamedTuple):
    """The modules of a network by their part in transfer learning, each module without its children.

    Attributes:
        head: What makes the logits; it learns from the start.
        later: What is unfrozen later.
        early: What stays frozen.
    """

    head: list[nn.Module]
    later: list[nn.Module]
    early: list[nn.Module]


def divide(network: nn.Module, unfreeze_from: str | None) -> Parts:
    """Divides a network at a layer, in the order in which its layers are registered.

    Args:
        network: A network with timm's `get_classifier`, or a detector, whose head is all but the pre-trained network in
            its `backbone`.
        unfreeze_from: Name of the first module of the later part; "" means all, None leaves that part empty.

    Raises:
        UserError: If the network has no such layer, or does not tell which layer is its head.
    """
    in_head = _head(network)
    names = [name for name, _ in network.named_modules()]
    if unfreeze_from is not None and unfreeze_from not in names:
        named = network.named_modules()
        layers = [name for name, module in named if name and id(module) not in in_head and [*module.parameters()]]
        layers.sort(key=lambda name: name.count("."))
        hint = did_you_mean(unfreeze_from, names) or f"; there are {', '.join(layers[:12])}, ..."
        raise UserError(f"`model.unfreeze_from` {unfreeze_from!r}: the network has no such layer{hint}")
    border = len(names) if unfreeze_from is None else names.index(unfreeze_from)
    parts = Parts([], [], [])
    for number, module in enumerate(network.modules()):
        part = parts.head if id(module) in in_head else parts.later if number >= border else parts.early
        part.append(module)
    return parts


def _head(network: nn.Module) -> set[int]:
    """The ids of the modules that learn from the start.

    Raises:
        UserError: If the network does not tell which these are.
    """
    if hasattr(network, "get_classifier"):
        return {id(module) for head in classifiers(network) for module in head.modules()}
    backbone = getattr(network, "backbone", None)
    body = next((getattr(backbone, name) for name in BODIES if hasattr(backbone, name)), None)
    if not isinstance(body, nn.Module):
        raise UserError("`model.transfer` requires a network with timm's get_classifier(): add that method")
    return {id(module) for module in network.modules()} - {id(module) for module in body.modules()}


class FineTuning(BaseFinetuning):
    """Trains the head of `module.network` on frozen features, and unfreezes later layers at a given epoch.

    Frozen layers are in evaluation mode: batch normalization keeps and uses the statistics that it came with, and
    nothing is dropped. Lightning's own `freeze` would let batch normalization use those of each batch. The optimizer
    must hold the parameters of the later layers from the start; without gradients it leaves them alone.

    Args:
        unfreeze_from: Name of the first layer that is unfrozen, "" for all; None leaves all but the head frozen.
        unfreeze_epoch: First epoch, counted from 0, in which it learns.
    """

    def __init__(self, unfreeze_from: str | None = None, unfreeze_epoch: int = 0) -> None:
        super().__init__()
        self.unfreeze_from = unfreeze_from
        self.unfreeze_epoch = unfreeze_epoch

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freezes all but the head."""
        parts = self._parts(pl_module)
        for parameter in own_parameters(*parts.early, *parts.later):
            parameter.requires_grad = False

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Unfreezes the later layers when their epoch has come, on a resumed run as well."""
        parts = self._parts(pl_module)
        learning = parts.head
        if epoch >= self.unfreeze_epoch:
            learning = [*parts.head, *parts.later]
            asleep = [parameter for parameter in own_parameters(*parts.later) if not parameter.requires_grad]
            for parameter in asleep:
                parameter.requires_grad = True
            if asleep:
                tell_ddp(pl_module)
        ids = {id(module) for module in learning}
        for module in pl_module.network.modules():  # type: ignore[union-attr, operator]
            # a frozen module that holds learning ones stays in training mode itself
            module.training = any(id(inner) in ids for inner in module.modules())

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: the optimizer's groups don't change in the course of a run, so none must be restored."""

    def _parts(self, pl_module: LightningModule) -> Parts:
        return divide(pl_module.network, self.unfreeze_from)  # type: ignore[arg-type]


def own_parameters(*modules: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of modules without those of their children."""
    for module in modules:
        yield from module.parameters(recurse=False)


def tell_ddp(pl_module: LightningModule) -> None:
    """Wraps the network anew: DDP shares the gradients of those parameters only that learned when it was wrapped."""
    strategy = pl_module.trainer.strategy
    if isinstance(strategy, DDPStrategy) and strategy.model is not pl_module:
        strategy.model = pl_module
        strategy.configure_ddp()
