"""A compact one-stage detector: each cell of a grid predicts the object whose center lies in it.

Source: Redmon et al., "You Only Look Once: Unified, Real-Time Object Detection" (2016), sections 2 and 2.2. As in
the paper, one pass over the image predicts a confidence, a box, and class probabilities for each cell; one cell is
responsible for each object; sizes are relative to the image; the loss of the box has weight 5. Differences:

- The grid is fine (cells of 8x8 pixels) with one box per cell. Coarser features are added to it (Lin et al. 2017), in
  place of the paper's dense layer over the whole image.
- A center may lie up to half a cell outside its cell (Bochkovskiy et al. 2020), so that no offset needs an infinite
  input.
- The loss of the box is the generalized IoU (Rezatofighi et al. 2019); those of confidence and classes are
  cross-entropies. The paper uses squared errors for all, and the IoU as target of the confidence.
- Batch normalization and ReLU, and no pre-training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_area, clip_boxes_to_image, generalized_box_iou_loss

STRIDE = 8  # side of a cell in pixels
CHANNELS = (32, 64, 128, 192, 256)  # of the stages, each of which halves the sides
WIDTH = 128  # channels behind which a cell answers
BOX_WEIGHT = 5.0  # lambda_coord (Redmon et al. 2016, section 2.2)
PRIOR = 0.01  # the confidence at the start: few cells have an object (Lin et al. 2017, "Focal Loss", section 3.3)

Targets = list[dict[str, Tensor]]


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution with batch normalization and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class GridBackbone(nn.Module):
    """Maps images `(n, in_chans, side, side)` to features of the cells `(n, WIDTH, side / 8, side / 8)`.

    Args:
        in_chans: Channels of the images.
    """

    def __init__(self, in_chans: int = 3) -> None:
        super().__init__()
        inputs = (in_chans, *CHANNELS)
        depths = (1, 2, 3, 2, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(_layer(before, after, 2), *(_layer(after, after) for _ in range(depth - 1)))
            for before, after, depth in zip(inputs, CHANNELS, depths, strict=False)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in CHANNELS[2:])
        self.smooth = _layer(WIDTH, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features of the finest grid, with those of the coarser ones added."""
        levels, x = [], images
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        fine, middle, coarse = (lateral(level) for lateral, level in zip(self.laterals, levels[2:], strict=True))
        middle = middle + F.interpolate(coarse, size=middle.shape[-2:])
        features: Tensor = self.smooth(fine + F.interpolate(middle, size=fine.shape[-2:]))
        return features


class DigitGrid(nn.Module):
    """The detector, with the interface of torchvision's detectors.

    Args:
        num_classes: Number of classes including the background, which is class 0.
        in_chans: Channels of the images.
        score_threshold: Lowest score of a detection.
        overlap: IoU above which the less confident of two detections of a class is removed.
        detections_per_image: Maximum number of detections per image.
    """

    def __init__(
        self,
        num_classes: int = 11,
        in_chans: int = 3,
        score_threshold: float = 0.05,
        overlap: float = 0.5,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        self.overlap = overlap
        self.detections_per_image = detections_per_image
        self.backbone = GridBackbone(in_chans)
        self.head = nn.Conv2d(WIDTH, 5 + num_classes - 1, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.head.bias[0] = torch.logit(torch.tensor(PRIOR))  # type: ignore[index]

    def forward(self, images: list[Tensor], targets: Targets | None = None) -> dict[str, Tensor] | Targets:
        """Returns losses in training, detections otherwise.

        Args:
            images: Float, each `(in_chans, side, side)`, all of one size, a multiple of 8.
            targets: In training, of each image `boxes` float `(m, 4)`, left, top, right, bottom in pixels, and
                `labels` int64 `(m,)`, from 1 on.

        Returns:
            In training `loss_confidence`, `loss_box` and `loss_class`, to be added up; otherwise for each image
            `boxes` `(k, 4)`, `labels` `(k,)` and `scores` `(k,)`, the most confident first.
        """
        batch = torch.stack(list(images))
        answers = self.head(self.backbone(batch)).float().permute(0, 2, 3, 1)
        rows, columns = answers.shape[1:3]
        size = answers.new_tensor([columns * STRIDE, rows * STRIDE])
        confidence, boxes, classes = answers[..., 0], _boxes(answers[..., 1:5], size), answers[..., 5:]
        if not self.training:
            return self._detections(confidence, boxes, classes)
        assert targets is not None
        return _losses(confidence, boxes, classes, targets)

    def _detections(self, confidence: Tensor, boxes: Tensor, classes: Tensor) -> Targets:
        """Detections of each image after non-maximum suppression; scores are P(object) P(class) (2016, equation 1)."""
        scores = (confidence.sigmoid()[..., None] * classes.softmax(-1)).flatten(1)
        kinds = classes.shape[-1]
        size = boxes.shape[1] * STRIDE, boxes.shape[2] * STRIDE
        boxes = clip_boxes_to_image(boxes, size).flatten(1, 2)
        found = []
        for own, places in zip(scores, boxes, strict=True):
            kept = torch.nonzero(own > self.score_threshold).flatten()
            label, place = kept % kinds, places[kept // kinds]
            best = batched_nms(place, own[kept], label, self.overlap)[: self.detections_per_image]
            found.append({"boxes": place[best], "labels": label[best] + 1, "scores": own[kept][best]})
        return found


def _boxes(raw: Tensor, size: Tensor) -> Tensor:
    """Converts the outputs of the cells to boxes: left, top, right, bottom in pixels.

    Args:
        raw: `(n, rows, columns, 4)`: position of the center in the cell, and size.
        size: Width and height of the image, `(2,)`.
    """
    rows, columns = raw.shape[1:3]
    y, x = torch.meshgrid(
        torch.arange(rows, device=raw.device), torch.arange(columns, device=raw.device), indexing="ij"
    )
    inside = 2 * raw[..., :2].sigmoid() - 0.5
    centre = (torch.stack([x, y], -1) + inside) * STRIDE
    half = raw[..., 2:].sigmoid() * size / 2
    return torch.cat([centre - half, centre + half], -1)


def assign(boxes: Tensor, images: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Assigns each box to the cell in which its center lies.

    If the centers of several boxes of an image lie in one cell, it gets the smallest; of equally small ones, the last.

    Args:
        boxes: `(m, 4)` in pixels.
        images: The image of each, int64 `(m,)`.
        grid: Number of images, rows and columns.

    Returns:
        The numbers of the cells, counted over all images row by row, int64 `(k,)`, and of the box of each, `(k,)`.
    """
    count, rows, columns = grid
    limit = boxes.new_tensor([columns - 1, rows - 1])
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2 / STRIDE).floor().clamp(min=torch.zeros_like(limit), max=limit).long().T
    cells = (images * rows + y) * columns + x
    order = box_area(boxes).argsort(descending=True, stable=True)
    owner = cells.new_full((count * rows * columns,), -1)
    # the last in the order wins, on each device alike
    owner.scatter_reduce_(0, cells[order], torch.arange(len(order), device=cells.device), "amax")
    taken = torch.nonzero(owner >= 0).flatten()
    return taken, order[owner[taken]]


def _losses(confidence: Tensor, boxes: Tensor, classes: Tensor, targets: Targets) -> dict[str, Tensor]:
    """The losses, each summed over the batch and divided by the number of objects.

    Args:
        confidence: Logits, `(n, rows, columns)`.
        boxes: `(n, rows, columns, 4)` in pixels.
        classes: Logits, `(n, rows, columns, classes)`.
        targets: The objects of each image.
    """
    true = torch.cat([target["boxes"] for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=true.device)
    images = torch.arange(len(targets), device=true.device).repeat_interleave(counts)
    cells, chosen = assign(true, images, (confidence.shape[0], confidence.shape[1], confidence.shape[2]))
    there = torch.zeros_like(confidence).flatten()
    there[cells] = 1
    objects = max(1, len(cells))
    box = generalized_box_iou_loss(boxes.flatten(0, 2)[cells], true[chosen], reduction="sum")
    kind = F.cross_entropy(classes.flatten(0, 2)[cells], labels[chosen] - 1, reduction="sum")
    objectness = F.binary_cross_entropy_with_logits(confidence.flatten(), there, reduction="sum")
    return {
        "loss_confidence": objectness / objects,
        "loss_box": BOX_WEIGHT * box / objects,
        "loss_class": kind / objects,
    }
