"""Progressive freezing: the first layers of a network stop learning before the others."""

from collections.abc import Sequence

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BaseFinetuning
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
        UserError: If `epoch` is below 1; when the training begins, if there is no such layer, nothing of it learns,
            nothing else learns, or other layers are unfrozen in this training.
    """

    def __init__(self, layers: str | Sequence[str], epoch: int) -> None:
        check("trainer.callbacks.epoch", epoch, least=1)
        self.layers = [layers] if isinstance(layers, str) else [*layers]
        self.epoch = epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the names of the layers."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BaseFinetuning):
                raise UserError(
                    f"LayerFreezing and {type(callback).__name__}, which freezes and unfreezes layers itself: remove "
                    "one of them; `model.transfer` full needs none"
                )
        network = self._network(pl_module)
        names = [name for name, _ in network.named_modules() if name]
        for layer in self.layers:
            if layer not in names:
                listed = [name for name, _ in network.named_children()]
                hint = did_you_mean(layer, names) or f"; there are {', '.join(listed[:12])}, and what they contain"
                raise UserError(f"`trainer.callbacks.layers` {layer!r}: the network has no such layer{hint}")
        learning = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
        frozen = {id(parameter) for layer in self._frozen(pl_module) for parameter in layer.parameters()}
        if not learning & frozen:
            raise UserError(f"`trainer.callbacks.layers` {self.layers}: nothing in them learns: name other layers")
        if not learning - frozen:
            raise UserError(f"`trainer.callbacks.layers` {self.layers}: nothing else would learn: name fewer layers")

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
        return [self._network(pl_module).get_submodule(layer) for layer in self.layers]

    def _network(self, pl_module: LightningModule) -> nn.Module:
        return pl_module.network  # type: ignore[return-value]
