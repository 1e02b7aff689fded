"""`trainer.sync_batchnorm`: batch normalization over the batches of all processes."""

from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import TorchSyncBatchNorm
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_cnn.errors import UserError

KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d)


class SyncedNorms(TorchSyncBatchNorm):
    """Replaces the batch normalizations of a network for the training, and puts them back after it.

    Lightning's own plugin takes timm's layers for plain batch normalization: it drops the activation that they contain,
    for good.
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def apply(self, model: nn.Module) -> nn.Module:
        """Replaces them; parameters and statistics stay those of the network."""
        self._replaced = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
            if isinstance(child, _BatchNorm)
        ]
        return convert_sync_batchnorm(model)  # type: ignore[no-any-return]

    def revert(self, model: nn.Module) -> nn.Module:
        """Puts them back with what they have learned."""
        for parent, name, norm in self._replaced:
            synced = getattr(parent, name)
            for key, value in [*synced.named_parameters(recurse=False), *synced.named_buffers(recurse=False)]:
                setattr(norm, key, value)
            setattr(parent, name, norm.train(synced.training))
        return model


def check_synced_norms(model: LightningModule) -> None:
    """Refuses a network whose batch normalization can't be synchronized.

    Raises:
        UserError: If it has a kind of its own, of which the replacement would be something else.
    """
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and type(norm) not in KNOWN:
            raise UserError(
                f"`trainer.sync_batchnorm`: {type(norm).__name__}, which the network contains, can't be synchronized: "
                "remove it"
            )
