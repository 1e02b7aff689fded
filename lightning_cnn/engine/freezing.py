"""Progressive freezing: the first layers of a network stop learning before the others."""

from collections.abc import Sequence

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BaseFinetuning
from pytorch_lightning.utilities import rank_zero_warn
from torch import nn

from lightning_cnn.errors import UserError, check, did_you_mean
from lightning_cnn.modules.fine_tuning import tell_ddp


class LayerFreezing(Callback):
    """Freezes layers of `module.network` from an epoch on: they keep their weights and no longer learn.

    Where these are the first layers of the network, the backward pass ends behind them, and a step takes less time.
    Frozen layers are in evaluation mode: batch normalization keeps and uses its statistics, and nothing is dropped.

    Source: Brock et al., "FreezeOut: accelerate training by progressively freezing layers" (2017), without its
    learning rate per layer.

    Args:
        layers: Name of a module, or several, such as `conv1` or `features.0`; what they contain is frozen as well.
        epoch: First epoch, counted from 0, in which they no longer learn.

    Raises:
        UserError: If `epoch` is below 1; before the training, as `check_freezing`.
    """

    def __init__(self, layers: str | Sequence[str], epoch: int) -> None:
        check("trainer.callbacks.epoch", epoch, least=1)
        self.layers = [layers] if isinstance(layers, str) else [*layers]
        self.epoch = epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the layers, and says when their epoch never comes."""
        check_freezing(trainer.callbacks, pl_module)  # type: ignore[attr-defined]
        if trainer.max_epochs is not None and 0 < trainer.max_epochs <= self.epoch:
            rank_zero_warn(
                f"LayerFreezing from epoch {self.epoch} on, counted from 0, of {trainer.max_epochs}: nothing is "
                "frozen; set a lower `trainer.callbacks.epoch`"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes the layers when their epoch has come, on a resumed run as well."""
        if trainer.current_epoch < self.epoch:
            return
        is_new = False
        for layer in self._frozen(pl_module):
            layer.eval()
            for parameter in layer.parameters():
                is_new |= parameter.requires_grad
                parameter.requires_grad, parameter.grad = False, None
        if is_new:
            tell_ddp(pl_module)

    def _frozen(self, pl_module: LightningModule) -> list[nn.Module]:
        return [_network(pl_module).get_submodule(layer) for layer in self.layers]


def check_freezing(callbacks: Sequence[Callback], model: LightningModule) -> None:
    """Refuses layers that can't be frozen.

    Args:
        callbacks: Those of the training.
        model: What they train.

    Raises:
        UserError: If there is no such layer, nothing of it learns, nothing else learns, or other layers are unfrozen in
            this training.
    """
    freezing = [callback for callback in callbacks if isinstance(callback, LayerFreezing)]
    if not freezing:
        return
    network = _network(model)
    other = [callback for callback in (*callbacks, *_own_callbacks(model)) if isinstance(callback, BaseFinetuning)]
    if other:
        raise UserError(
            f"LayerFreezing can't be combined with {type(other[0]).__name__}, which freezes and unfreezes layers "
            "itself: remove one of them, or set `model.transfer` full"
        )
    names = [name for name, _ in network.named_modules() if name]
    learning = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    for callback in freezing:
        for layer in callback.layers:
            if layer not in names:
                listed = [name for name, _ in network.named_children()]
                hint = did_you_mean(layer, names) or f"; there are {', '.join(listed[:12])}, and what they contain"
                raise UserError(f"`trainer.callbacks.layers` {layer!r}: the network has no such layer{hint}")
        frozen = {id(parameter) for layer in callback._frozen(model) for parameter in layer.parameters()}
        if not learning & frozen:
            raise UserError(f"`trainer.callbacks.layers` {callback.layers}: nothing in them learns: name other layers")
        learning -= frozen
        if not learning:
            raise UserError(
                f"`trainer.callbacks.layers` {callback.layers}: nothing else would learn: name fewer layers"
            )


def _network(model: LightningModule) -> nn.Module:
    network = getattr(model, "network", None)
    if not isinstance(network, nn.Module):
        raise UserError(f"LayerFreezing freezes layers of `network`, which {type(model).__name__} does not have")
    return network


def _own_callbacks(model: LightningModule) -> Sequence[Callback]:
    """The callbacks that a module brings."""
    found = model.configure_callbacks()
    return found if isinstance(found, Sequence) else [found]
