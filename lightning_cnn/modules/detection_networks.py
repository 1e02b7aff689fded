"""Makes a detector by name: ours, or one of torchvision's, on its own small backbone or any of timm's."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from lightning_cnn.architectures.feature_pyramid import FeaturePyramid
from lightning_cnn.architectures.grid_detector import STRIDE, STRIDES, GridBackbone, GridDetector
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.modules.backbones import create_backbone, is_backbone_state
from lightning_cnn.modules.pretrained import Weights, read_weights

DetectorName = Literal["grid", "faster_rcnn", "retinanet", "fcos", "ssd"]
# the losses of each in training, as they are logged
LOSSES: dict[DetectorName, tuple[str, ...]] = {
    "grid": ("loss_confidence", "loss_box", "loss_class"),
    "faster_rcnn": ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"),
    "retinanet": ("loss_classification", "loss_bbox_regression"),
    "fcos": ("loss_classification", "loss_bbox_regression", "loss_bbox_ctrness"),
    "ssd": ("loss_classification", "loss_bbox_regression"),
}
SMALLEST, LARGEST = 32, 1024
FINENESS = (4, 8)  # of the grid, pixels
CELLS = (8, 16, 32, 64)  # of the levels of a pyramid, in pixels
ANY = (0.5, 1.0, 2.0)  # height by width of the anchors
TALL = (1.0, 2.0, 3.0)  # of digits
# groups, where batches of a few images are too small for statistics of their own (Wu and He 2018, section 4.2)
NORM = partial(nn.GroupNorm, 8)
HEAD = 256  # width of the layers that look at each proposal of Faster R-CNN; 1024 would be two thirds of its work
SCORE, OVERLAP, DETECTIONS = 0.05, 0.5, 100  # what is given: score at least, IoU at most, and so many an image


def create_detector(
    detector: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    *,
    backbone: str | None = None,
    pretrained: bool = False,
    weights: str | None = None,
    cell: int = STRIDE,
    shapes: tuple[float, ...] = ANY,
) -> tuple[nn.Module, dict[str, Any] | None]:
    """Makes a detector.

    All are called as torchvision's are: in training with a list of images and one of `boxes` and `labels`, for a
    dictionary of losses; otherwise with the images, for a list of `boxes`, `labels` and `scores`. Labels count from 1.
    torchvision's are made for photos of 800 pixels: here the pyramids begin with finer cells, and the anchors are
    smaller.

    Args:
        detector: `grid`, ours (architectures/grid_detector.py); `faster_rcnn` (Ren et al. 2015, Lin et al. 2017);
            `retinanet` (Lin et al. 2017); `fcos` (Tian et al. 2019); `ssd` (Liu et al. 2016).
        num_classes: Number of classes without the background.
        in_channels: Channels of the images; without a backbone, torchvision's take 3.
        image_size: Side of the images in pixels.
        backbone: Network of timm; default our own stages for `grid`, MobileNetV3 for `faster_rcnn` and `ssd` (which
            then is SSDlite, Sandler et al. 2018), and ResNet-18 for `retinanet` and `fcos`.
        pretrained: Whether the backbone starts from the weights that timm knows of.
        weights: File of weights of the backbone, or of the whole detector; its layers for another number of classes
            stay new.
        cell: Side of the cells of `grid` in pixels, 4 or 8.
        shapes: Height by width of the anchors.

    Returns:
        The detector, and the preprocessing of the pre-trained weights, if any.

    Raises:
        UserError: If there is no such detector or backbone, or the images or the weights don't fit it.
    """
    if detector not in get_args(DetectorName):
        hint = did_you_mean(detector, get_args(DetectorName)) or f"; there are {', '.join(get_args(DetectorName))}"
        raise UserError(f"unknown `model.detector` {detector!r}{hint}")
    if not SMALLEST <= image_size <= LARGEST or image_size % STRIDE:
        nearest = min(LARGEST, max(SMALLEST, round(image_size / STRIDE) * STRIDE))
        raise UserError(
            f"images of {image_size}x{image_size} don't fit a detector, which takes a multiple of {STRIDE} pixels "
            f"between {SMALLEST} and {LARGEST}: try `data.image_size` {nearest}"
        )
    if cell not in FINENESS:
        raise UserError(f"`model.cell` {cell}: expected 4 or 8")
    if cell != STRIDE and detector != "grid":
        raise UserError(f"`model.cell` {cell} is an option of `model.detector` grid: remove it")
    if detector != "grid" and backbone is None and in_channels != 3:
        raise UserError(
            f"`model.detector` {detector} requires 3 channels, but the images have {in_channels}: use grid, or add a "
            "`model.backbone`"
        )
    if pretrained and backbone is None:
        raise UserError("`model.pretrained` requires a `model.backbone` of timm, such as resnet18: add one")
    read = read_weights(weights) if weights is not None else None
    of_backbone = body = scaling = None
    channels: list[int] = []
    if backbone is not None:
        strides = STRIDES[STRIDES.index(cell if detector == "grid" else STRIDE) :]
        make = partial(create_backbone, backbone, strides, in_channels, image_size)
        body, channels, scaling = make(pretrained and read is None)
    make_with = partial(_make, detector, in_channels, image_size, body, channels, cell, shapes)
    network = make_with(1 + num_classes)
    if detector != "grid":
        _compute_boxes_in_float32(network)
    if read is not None and body is not None and is_backbone_state(read.state, network):
        of_backbone, _, scaling = make(weights=read)
        body.load_state_dict(of_backbone.state_dict())
    elif read is not None:
        scaling = read.preprocessing
        if any(value.shape != read.state.get(name, value).shape for name, value in network.state_dict().items()):
            read = _without_classes(read, network, make_with(2 + num_classes))
        _load(network, read, detector)
    return network, scaling


def _compute_boxes_in_float32(network: Any) -> None:
    """Lets a detector of torchvision decode boxes in float32 where its layers compute in less.

    Its anchors and boxes have the type of the features, and bfloat16 has no odd numbers above 256.
    """
    parts = [getattr(network, name, None) for name in ("rpn", "roi_heads")]
    for part in (network, *(part for part in parts if part is not None)):
        for name in ("head", "box_predictor"):
            if hasattr(part, name):
                getattr(part, name).register_forward_hook(lambda _, inputs, outputs: _in_float32(outputs))
        if hasattr(part, "anchor_generator"):
            part.anchor_generator.register_forward_pre_hook(lambda _, inputs: _in_float32(inputs))


def _in_float32(values: Any) -> Any:
    """The same with all tensors in float32."""
    if isinstance(values, Tensor):
        return values.float()
    if isinstance(values, dict):
        return {name: _in_float32(value) for name, value in values.items()}
    return type(values)(map(_in_float32, values)) if isinstance(values, list | tuple) else values


def _without_classes(weights: Weights, network: nn.Module, other: nn.Module) -> Weights:
    """The weights of a detector of other classes, with those of the network itself in layers that depend on these.

    Args:
        weights: The weights.
        network: The detector that they are for.
        other: The same with one class more.
    """
    own, more = network.state_dict(), other.state_dict()
    new = {name: value for name, value in own.items() if value.shape != more[name].shape and name in weights.state}
    return replace(weights, state=weights.state | new)


def _load(network: nn.Module, weights: Weights, detector: str) -> None:
    """Loads the weights of a whole detector.

    Raises:
        UserError: If they are those of another.
    """
    try:
        network.load_state_dict(weights.state)
    except RuntimeError as error:
        raise weights.not_of(detector, str(error).strip().splitlines()[1].strip()[:120]) from None


def _make(
    detector: str,
    in_channels: int,
    image_size: int,
    body: nn.Module | None,
    channels: list[int],
    cell: int,
    shapes: tuple[float, ...],
    classes: int,
) -> nn.Module:
    """The detector on features of a network, or on its own; `classes` includes the background."""
    if detector == "grid":
        grid = GridBackbone(in_channels, cell, body, channels)
        return GridDetector(classes, grid, cell, SCORE, OVERLAP, DETECTIONS)
    # our preprocessing has scaled the images already
    scaling: dict[str, Any] = {"image_mean": [0.0] * in_channels, "image_std": [1.0] * in_channels}
    same = {"min_size": image_size, "max_size": image_size, **scaling}
    limits = {"score_thresh": SCORE, "nms_thresh": OVERLAP, "detections_per_img": DETECTIONS}
    if detector == "ssd":
        if body is None:
            network = ssdlite320_mobilenet_v3_large(
                weights=None, weights_backbone=None, num_classes=classes, norm_layer=NORM, **limits
            )
        else:
            boxes = DefaultBoxGenerator([[2, 3]] * len(CELLS), min_ratio=10, max_ratio=80)
            levels: Any = FeaturePyramid(body, channels)
            levels.out_channels = [levels.out_channels] * len(CELLS)  # SSD asks for those of each level
            network = SSD(levels, boxes, (image_size, image_size), classes, **scaling, **limits)
        # it would enlarge all images to 320 pixels
        network.transform = GeneralizedRCNNTransform(**same, size_divisible=1, fixed_size=(image_size, image_size))
        return network  # type: ignore[no-any-return]
    pyramid: dict[str, Any] = {"weights": None, "norm_layer": NORM, "returned_layers": [2, 3, 4]}
    anchors = AnchorGenerator([(1.5 * each, 2.1 * each) for each in CELLS], [shapes] * len(CELLS))
    if detector == "faster_rcnn":
        backbone = (
            mobilenet_backbone(backbone_name="mobilenet_v3_large", fpn=True, trainable_layers=6, **pyramid)
            if body is None
            else FeaturePyramid(body, channels)
        )
        return FasterRCNN(  # type: ignore[no-any-return]
            backbone,
            box_head=TwoMLPHead(7 * 7 * backbone.out_channels, HEAD),
            box_predictor=FastRCNNPredictor(HEAD, classes),
            rpn_anchor_generator=anchors,
            # our images have few objects
            rpn_post_nms_top_n_train=500,
            rpn_post_nms_top_n_test=100,
            box_batch_size_per_image=64,
            **{f"box_{name}": value for name, value in limits.items()},
            **same,
        )
    if body is None:
        features = resnet_fpn_backbone(backbone_name="resnet18", trainable_layers=5, **pyramid)
    else:
        features = FeaturePyramid(body, channels)
    if detector == "fcos":  # it has points and no anchors
        anchors = AnchorGenerator([(each,) for each in CELLS], [(1.0,)] * len(CELLS))
    kind = RetinaNet if detector == "retinanet" else FCOS
    return kind(features, classes, anchor_generator=anchors, **limits, **same)  # type: ignore[no-any-return]
