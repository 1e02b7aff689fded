"""Segmentation networks of segmentation-models-pytorch, with any convolutional backbone of timm as the encoder."""

from importlib import import_module
from typing import Any

import timm
from timm.models import register_model
from torch import Tensor, nn

from lightning_cnn.architectures.unet import pad_to
from lightning_cnn.errors import UserError, did_you_mean, require


class EncoderDecoder(nn.Module):
    """An encoder of timm, a decoder and a head of segmentation-models-pytorch.

    Images may have any size: they are extended by their border to a multiple of the encoder's stride. Pre-trained
    weights are those of the encoder; the decoder and the head are new.

    Args:
        model: A model of segmentation-models-pytorch.
        num_classes: Number of classes.
    """

    def __init__(self, model: Any, num_classes: int) -> None:
        super().__init__()
        self.encoder: Any = model.encoder
        self.decoder: Any = model.decoder
        self.head: Any = model.segmentation_head
        self.num_classes = num_classes
        self.num_features: int = self.head[0].in_channels
        self.multiple = int(self.encoder.output_stride)
        self.pretrained_cfg: dict[str, Any] = dict(getattr(self.encoder.model, "pretrained_cfg", None) or {})

    def unused_weights(self) -> set[str]:
        """Names of the weights that the encoder has as a classifier, and lacks here."""
        here = {_flat(name) for name in self.encoder.model.state_dict()}
        return {name for name in timm.create_model(self.encoder.name).state_dict() if _flat(name) not in here}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last convolution with a new one.

        Args:
            num_classes: Number of classes; 0 removes it.
            global_pool: Ignored; part of timm's interface.
        """
        self.num_classes = num_classes
        kernel = getattr(self.head[0], "kernel_size", (1, 1))
        new = (
            nn.Conv2d(self.num_features, num_classes, kernel, padding=kernel[0] // 2) if num_classes else nn.Identity()
        )
        self.head[0] = new

    def get_classifier(self) -> list[nn.Module]:
        """Returns the decoder and the head: what is new where the encoder is pre-trained."""
        return [self.decoder, self.head]

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps of the decoder `(batch, num_features, height', width')`."""
        outputs: Tensor = self.decoder(self.encoder(pad_to(x, self.multiple)))
        return outputs

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the maps of the decoder; with `pre_logits` the maps as they are."""
        outputs: Tensor = x if pre_logits else self.head(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(batch, num_classes, height, width)` of images `(batch, in_chans, height, width)`."""
        return self.forward_head(self.forward_features(x))[..., : x.shape[-2], : x.shape[-1]]


def _flat(name: str) -> str:
    """The name of a weight, alike in a network of timm and in its maps, where `stages.0` may be `stages_0`."""
    return name.replace(".", "_")


def _make(
    kind: str,
    pretrained: bool,
    *,
    encoder: str = "resnet18",
    num_classes: int = 2,
    in_chans: int = 3,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    pretrained_cfg: Any = None,
    cache_dir: Any = None,
    **options: Any,
) -> EncoderDecoder:
    """Makes a network; `pretrained_cfg_overlay` may hold weights, of the encoder or of the whole network."""
    require("segmentation", f"the decoder {kind}")
    if not isinstance(encoder, str) or not timm.is_model(encoder):
        hint = did_you_mean(str(encoder), timm.list_models()) or "; expected the name of a network of timm"
        raise UserError(f"unknown `model.architecture_options.encoder` {encoder!r}{hint}")
    smp: Any = import_module("segmentation_models_pytorch")

    state = (pretrained_cfg_overlay or {}).get("state_dict") or {}
    is_whole = any(name.startswith("decoder.") for name in state)
    if pretrained and not is_whole:
        options |= {"encoder_weights": True, "pretrained_cfg_overlay": pretrained_cfg_overlay}
    else:
        options["encoder_weights"] = None
    made = getattr(smp, kind)(f"tu-{encoder}", in_channels=in_chans, classes=num_classes or 1, **options)
    network = EncoderDecoder(made, num_classes or 1)
    if is_whole:
        own = network.head.state_dict(prefix="head.")
        fitting = {name: value for name, value in state.items() if own.get(name, value).shape == value.shape}
        said = network.load_state_dict(fitting, strict=False)
        odd = [name for name in (*said.missing_keys, *said.unexpected_keys) if not name.startswith("head.")]
        if odd:
            raise RuntimeError(f"they differ in {odd[0]} and {len(odd) - 1} more")
    if not num_classes:
        network.reset_classifier(0)
    return network


@register_model
def smp_unet(pretrained: bool = False, **kwargs: Any) -> EncoderDecoder:
    """U-Net decoder on a backbone of timm, named by the option `encoder` (extra `segmentation`)."""
    return _make("Unet", pretrained, **kwargs)


@register_model
def smp_deeplabv3plus(pretrained: bool = False, **kwargs: Any) -> EncoderDecoder:
    """DeepLabV3+ decoder (Chen et al. 2018) on a backbone of timm (extra `segmentation`)."""
    return _make("DeepLabV3Plus", pretrained, **kwargs)


@register_model
def smp_fpn(pretrained: bool = False, **kwargs: Any) -> EncoderDecoder:
    """Feature pyramid decoder (Kirillov et al. 2017) on a backbone of timm (extra `segmentation`)."""
    return _make("FPN", pretrained, **kwargs)
