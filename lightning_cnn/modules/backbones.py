"""Makes a backbone of timm by name, with its weights, and says in one sentence why it can't."""

from typing import Any

from torch import nn

from lightning_cnn.errors import UserError
from lightning_cnn.modules.network import create_network
from lightning_cnn.modules.pretrained import Weights, pretrained_preprocessing


def create_backbone(
    name: str,
    strides: tuple[int, ...],
    in_channels: int,
    image_size: int,
    pretrained: bool = False,
    weights: Weights | None = None,
) -> tuple[nn.Module, list[int], dict[str, Any] | None]:
    """Makes a network of timm that returns its features at given strides.

    Args:
        name: A name in timm's registry, or `my_file.my_network`.
        strides: Pixels of the image per pixel of the features, from fine to coarse.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
        pretrained: Whether to load the weights that timm knows of.
        weights: Weights of the network to start from; its head is left out.

    Returns:
        The network, the channels of its features, and the preprocessing of its pre-trained weights, if any.

    Raises:
        UserError: If the name is unknown, the network has no features at these strides, or the weights can't be had or
            are another network's.
    """
    try:
        try:
            network = create_network(name, 0, in_channels, image_size, options={"features_only": True})
            found: list[int] = network.feature_info.reduction()  # type: ignore[union-attr, operator]
        except AttributeError:
            raise UserError(
                f"`model.backbone` {name} does not return its features, as most networks of timm do: use one of these, "
                "such as resnet18"
            ) from None
        if not set(strides) <= set(found):
            wanted, given = (", ".join(map(str, each)) for each in (strides, found))
            raise UserError(
                f"`model.backbone` {name} has features at strides {given}, but the detector needs {wanted}: use a "
                "convolutional network, such as resnet18"
            )
        places = [max(place for place, each in enumerate(found) if each == stride) for stride in strides]
        indices = [network.feature_info.out_indices[place] for place in places]  # type: ignore[union-attr, index]
        options = {"features_only": True, "out_indices": indices}
        network = create_network(name, 0, in_channels, image_size, pretrained, options, weights)
    except UserError as error:
        text = str(error).replace("`model.architecture`", "`model.backbone`")
        raise UserError(text) from None
    scaling = pretrained_preprocessing(network, in_channels, weights) if pretrained or weights else None
    return network, network.feature_info.channels(), scaling  # type: ignore[union-attr, operator]


def is_backbone_state(state: dict[str, Any], network: nn.Module) -> bool:
    """Whether weights are those of a backbone alone, and not of the whole detector.

    Args:
        state: The weights by name.
        network: The detector.
    """
    return not state.keys() & network.state_dict().keys()
