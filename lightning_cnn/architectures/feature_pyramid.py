"""Features of any timm network at several strides, as torchvision's detectors take them."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool


class FeaturePyramid(nn.Module):
    """Maps images to features with strides 8, 16, 32 and 64, all with the same number of channels (Lin et al. 2017).

    Source: Lin et al., "Feature Pyramid Networks for Object Detection" (2017), section 3.

    Args:
        body: A network that returns features of strides 8, 16 and 32, such as one of timm with `features_only`.
        channels: Channels of these.
        width: Channels of each level.
    """

    def __init__(self, body: nn.Module, channels: list[int], width: int = 256) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(channels, width, LastLevelMaxPool())
        self.out_channels = width

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the features by name, `0` for the finest."""
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(n), x) for n, x in enumerate(self.body(images))))
        return levels
