"""Makes a detector by name: ours, or one of torchvision's with a small backbone."""

from functools import partial
from typing import Any, Literal, get_args

from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from lightning_cnn.architectures.digit_grid import STRIDE, DigitGrid
from lightning_cnn.errors import UserError, did_you_mean

Detector = Literal["grid", "faster_rcnn", "retinanet", "fcos", "ssd"]
# the losses of each in training, as they are logged
LOSSES: dict[Detector, tuple[str, ...]] = {
    "grid": ("loss_confidence", "loss_box", "loss_class"),
    "faster_rcnn": ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"),
    "retinanet": ("loss_classification", "loss_bbox_regression"),
    "fcos": ("loss_classification", "loss_bbox_regression", "loss_bbox_ctrness"),
    "ssd": ("loss_classification", "loss_bbox_regression"),
}
SMALLEST, LARGEST = 32, 1024
CELLS = (8, 16, 32, 64)  # of the levels of a pyramid, in pixels
TALL = (1.0, 2.0, 3.0)  # height by width of digits, and so of the anchors
# groups, where batches of a few images are too small for statistics of their own (Wu and He 2018, section 4.2)
NORM = partial(nn.GroupNorm, 8)
HEAD = 256  # width of the layers that look at each proposal of Faster R-CNN; 1024 would be two thirds of its work
SCORE, OVERLAP, DETECTIONS = 0.05, 0.5, 100  # what is given: score at least, IoU at most, and so many an image


def create_detector(detector: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Makes a detector without pre-trained weights.

    All are called as torchvision's are: in training with a list of images and one of `boxes` and `labels`, for a
    dictionary of losses; otherwise with the images, for a list of `boxes`, `labels` and `scores`. Labels count from 1.
    torchvision's are made for photos of 800 pixels and all kinds of things: here the pyramids begin with finer cells,
    and the anchors are smaller and as tall as digits.

    Args:
        detector: `grid`, ours (architectures/digit_grid.py); `faster_rcnn` with a MobileNetV3 (Ren et al. 2015, Lin
            et al. 2017); `retinanet` (Lin et al. 2017) and `fcos` (Tian et al. 2019) with a ResNet-18; `ssd`, SSDlite
            with a MobileNetV3 (Liu et al. 2016, Sandler et al. 2018).
        num_classes: Number of classes without the background.
        in_channels: Channels of the images; torchvision's take 3.
        image_size: Side of the images in pixels.

    Raises:
        UserError: If there is no such detector, or the images don't fit it.
    """
    if detector not in get_args(Detector):
        hint = did_you_mean(detector, get_args(Detector)) or f"; there are {', '.join(get_args(Detector))}"
        raise UserError(f"unknown `model.detector` {detector!r}{hint}")
    if not SMALLEST <= image_size <= LARGEST or image_size % STRIDE:
        nearest = min(LARGEST, max(SMALLEST, round(image_size / STRIDE) * STRIDE))
        raise UserError(
            f"images of {image_size}x{image_size} don't fit a detector, which takes a multiple of {STRIDE} pixels "
            f"between {SMALLEST} and {LARGEST}: try `data.image_size` {nearest}"
        )
    if detector != "grid" and in_channels != 3:
        raise UserError(f"`model.detector` {detector} requires 3 channels, but the images have {in_channels}: use grid")
    classes = 1 + num_classes
    if detector == "grid":
        return DigitGrid(classes, in_channels, SCORE, OVERLAP, DETECTIONS)
    # our preprocessing has scaled the images already
    scaling: dict[str, Any] = {"min_size": image_size, "max_size": image_size, "image_mean": [0.0] * 3}
    scaling["image_std"] = [1.0] * 3
    if detector == "ssd":
        network = ssdlite320_mobilenet_v3_large(
            weights=None,
            weights_backbone=None,
            num_classes=classes,
            norm_layer=NORM,
            score_thresh=SCORE,
            nms_thresh=OVERLAP,
            detections_per_img=DETECTIONS,
        )
        # it would enlarge all images to 320 pixels
        network.transform = GeneralizedRCNNTransform(**scaling, size_divisible=1, fixed_size=(image_size, image_size))
        return network  # type: ignore[no-any-return]
    pyramid: dict[str, Any] = {"weights": None, "norm_layer": NORM, "returned_layers": [2, 3, 4]}
    anchors = AnchorGenerator([(1.5 * cell, 2.1 * cell) for cell in CELLS], [TALL] * len(CELLS))
    if detector == "faster_rcnn":
        backbone = mobilenet_backbone(backbone_name="mobilenet_v3_large", fpn=True, trainable_layers=6, **pyramid)
        return FasterRCNN(  # type: ignore[no-any-return]
            backbone,
            box_head=TwoMLPHead(7 * 7 * backbone.out_channels, HEAD),
            box_predictor=FastRCNNPredictor(HEAD, classes),
            rpn_anchor_generator=anchors,
            # a house has few digits
            rpn_post_nms_top_n_train=500,
            rpn_post_nms_top_n_test=100,
            box_batch_size_per_image=64,
            box_score_thresh=SCORE,
            box_nms_thresh=OVERLAP,
            box_detections_per_img=DETECTIONS,
            **scaling,
        )
    backbone = resnet_fpn_backbone(backbone_name="resnet18", trainable_layers=5, **pyramid)
    if detector == "fcos":  # it has points and no anchors
        anchors = AnchorGenerator([(cell,) for cell in CELLS], [(1.0,)] * len(CELLS))
    kind = RetinaNet if detector == "retinanet" else FCOS
    return kind(  # type: ignore[no-any-return]
        backbone,
        classes,
        anchor_generator=anchors,
        score_thresh=SCORE,
        nms_thresh=OVERLAP,
        detections_per_img=DETECTIONS,
        **scaling,
    )
