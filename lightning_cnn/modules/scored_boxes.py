"""What `export` writes of a detector: all its boxes with their scores, before non-maximum suppression."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

from lightning_cnn.architectures.grid_detector import GridDetector
from lightning_cnn.errors import UserError


class ScoredBoxes(nn.Module):
    """Maps images to boxes and scores, `(n, boxes, 4 + classes)`: left, top, right, bottom in pixels, then the scores.

    Attributes:
        selection: How detections are selected from them, as plain data: the `candidates` with the highest scores of
            each level of the pyramid, by the number of boxes in each of `levels`, or of each class where `levels` is
            empty; None for all.

    Args:
        network: The detector, in evaluation mode.
        image: A batch with one image of the size that it is to take.

    Raises:
        UserError: If the detector has no such outputs.
    """

    anchors: Tensor

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.network = network
        self.size = image.shape[-2], image.shape[-1]
        self.selection: dict[str, Any] = {"candidates": None, "levels": []}
        if isinstance(network, GridDetector):
            return
        if not isinstance(network, FCOS | RetinaNet | SSD):
            raise UserError(
                f"{type(network).__name__} chooses its proposals by non-maximum suppression within the network, so it "
                "has no outputs before that to export: use `predict()`, or train another `model.detector`"
            )
        # torchvision's pyramids pad the images on the right and at the bottom
        self.padding = [0 if isinstance(network, SSD) else -side % 32 for side in self.size]
        with torch.no_grad():
            padded = self._padded(image)
            features = self._features(padded)
            found = network.anchor_generator(ImageList(padded, [self.size]), features)[0]
        self.register_buffer("anchors", found, persistent=False)
        self.selection["candidates"] = network.topk_candidates
        if not isinstance(network, SSD):
            each = network.anchor_generator.num_anchors_per_location()
            sides = [level.shape[-2] * level.shape[-1] for level in features]
            self.selection["levels"] = [side * count for side, count in zip(sides, each, strict=True)]

    def forward(self, images: Tensor) -> Tensor:
        """Boxes and scores of images `(n, in_channels, side, side)`."""
        network: Any = self.network
        if isinstance(network, GridDetector):
            return torch.cat(network.scored(images), -1)
        features = self._features(self._padded(images))
        answers = network.head(features)
        codes = answers["bbox_regression"]
        anchors = self.anchors.expand(len(images), -1, -1)
        logits = answers["cls_logits"]
        if isinstance(network, FCOS):
            boxes = network.box_coder.decode(codes, anchors)
            scores = (logits.sigmoid() * answers["bbox_ctrness"].sigmoid()).sqrt()
        else:
            boxes = network.box_coder.decode_single(codes.reshape(-1, 4), anchors.reshape(-1, 4)).view_as(codes)
            scores = logits.softmax(-1) if isinstance(network, SSD) else logits.sigmoid()
        # class 0 is the background
        return torch.cat([clip_boxes_to_image(boxes, self.size), scores[..., 1:]], -1)

    def _padded(self, images: Tensor) -> Tensor:
        height, width = self.padding
        return F.pad(images, (0, width, 0, height))

    def _features(self, images: Tensor) -> list[Tensor]:
        found = self.network.backbone(images)  # type: ignore[operator]
        return list(found.values())
