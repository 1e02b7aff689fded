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

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_area, clip_boxes_to_image, generalized_box_iou_loss

STRIDE = 8  # usual side of a cell in pixels
STRIDES = (2, 4, 8, 16, 32)  # of the stages
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
    """Maps images to features of the cells `(n, WIDTH, side / cell, side / cell)`.

    Args:
        in_chans: Channels of the images.
        cell: Side of a cell in pixels, 4 or 8.
        body: A network that returns features of strides `cell` to 32, in place of our own stages.
        channels: Channels of these features.
    """

    def __init__(
        self, in_chans: int = 3, cell: int = STRIDE, body: nn.Module | None = None, channels: Sequence[int] = ()
    ) -> None:
        super().__init__()
        if body is None:
            inputs = (in_chans, *CHANNELS)
            depths = (1, 2, 3, 2, 2)
            self.stages = nn.ModuleList(
                nn.Sequential(_layer(before, after, 2), *(_layer(after, after) for _ in range(depth - 1)))
                for before, after, depth in zip(inputs, CHANNELS, depths, strict=False)
            )
            channels = CHANNELS[STRIDES.index(cell) - len(STRIDES) :]
        else:
            self.body = body
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, WIDTH, 1) for inputs in channels)
        self.smooth = _layer(WIDTH, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the features of the finest grid, with those of the coarser ones added."""
        levels = self._levels(images)[-len(self.laterals) :]
        *finer, features = (lateral(level) for lateral, level in zip(self.laterals, levels, strict=True))
        for level in reversed(finer):
            features = level + F.interpolate(features, size=level.shape[-2:])
        smooth: Tensor = self.smooth(features)
        return smooth

    def _levels(self, images: Tensor) -> list[Tensor]:
        if hasattr(self, "body"):
            return list(self.body(images))
        levels, x = [], images
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class GridDetector(nn.Module):
    """The detector, with the interface of torchvision's detectors.

    Args:
        num_classes: Number of classes including the background, which is class 0.
        backbone: Features of the cells; default those of our own small network for images of three channels.
        cell: Side of a cell in pixels, 4 or 8.
        score_threshold: Lowest score of a detection.
        overlap: IoU above which the less confident of two detections of a class is removed.
        detections_per_image: Maximum number of detections per image.
    """

    def __init__(
        self,
        num_classes: int = 11,
        backbone: GridBackbone | None = None,
        cell: int = STRIDE,
        score_threshold: float = 0.05,
        overlap: float = 0.5,
        detections_per_image: int = 100,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.score_threshold = score_threshold
        self.overlap = overlap
        self.detections_per_image = detections_per_image
        self.backbone = backbone or GridBackbone(cell=cell)
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
                `labels` int64 `(m,)`, from 1 on. Cells whose centers lie in one of its `crowds` `(k, 4)`, where it has
                these, need no confidence, unless they have an object.

        Returns:
            In training `loss_confidence`, `loss_box` and `loss_class`, to be added up; otherwise for each image
            `boxes` `(k, 4)`, `labels` `(k,)` and `scores` `(k,)`, the most confident first.
        """
        confidence, boxes, classes = self.answers(torch.stack(list(images)))
        if not self.training:
            return self._detections(confidence, boxes, classes)
        assert targets is not None
        return _losses(confidence, boxes, classes, targets, self.cell)

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each cell answers.

        Args:
            images: `(n, in_chans, side, side)`.

        Returns:
            Logits of the confidence `(n, rows, columns)`, boxes in pixels `(n, rows, columns, 4)`, and logits of the
            classes `(n, rows, columns, classes)`.
        """
        answers = self.head(self.backbone(images)).float().permute(0, 2, 3, 1)
        return answers[..., 0], _boxes(answers[..., 1:5], self.cell), answers[..., 5:]

    def scored(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All boxes and their scores, before any is removed.

        Args:
            images: `(n, in_chans, side, side)`.

        Returns:
            Boxes in pixels `(n, cells, 4)`, within the image, and scores `(n, cells, classes)`.
        """
        return self._scored(*self.answers(images))

    def _scored(self, confidence: Tensor, boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        size = boxes.shape[1] * self.cell, boxes.shape[2] * self.cell
        # P(object) P(class) (Redmon et al. 2016, equation 1)
        scores = confidence.sigmoid()[..., None] * classes.softmax(-1)
        return clip_boxes_to_image(boxes, size).flatten(1, 2), scores.flatten(1, 2)

    def _detections(self, confidence: Tensor, boxes: Tensor, classes: Tensor) -> Targets:
        """Detections of each image after non-maximum suppression."""
        kinds = classes.shape[-1]
        found = []
        for places, shares in zip(*self._scored(confidence, boxes, classes), strict=True):
            own = shares.flatten()
            kept = torch.nonzero(own > self.score_threshold).flatten()
            label, place = kept % kinds, places[kept // kinds]
            best = batched_nms(place, own[kept], label, self.overlap)[: self.detections_per_image]
            found.append({"boxes": place[best], "labels": label[best] + 1, "scores": own[kept][best]})
        return found


def _boxes(raw: Tensor, cell: int) -> Tensor:
    """Converts the outputs of the cells to boxes: left, top, right, bottom in pixels.

    Args:
        raw: `(n, rows, columns, 4)`: position of the center in the cell, and size.
        cell: Side of a cell in pixels.
    """
    rows, columns = raw.shape[1:3]
    y, x = torch.meshgrid(
        torch.arange(rows, device=raw.device), torch.arange(columns, device=raw.device), indexing="ij"
    )
    size = raw.new_tensor([columns * cell, rows * cell])
    inside = 2 * raw[..., :2].sigmoid() - 0.5
    centre = (torch.stack([x, y], -1) + inside) * cell
    half = raw[..., 2:].sigmoid() * size / 2
    return torch.cat([centre - half, centre + half], -1)


def assign(boxes: Tensor, images: Tensor, grid: tuple[int, int, int], cell: int = STRIDE) -> tuple[Tensor, Tensor]:
    """Assigns each box to the four cells whose centers are nearest to its own.

    One of these is the cell in which the center lies. If several boxes of an image claim a cell, the one whose center
    lies in it gets it before its neighbors; of these the smallest; of equally small ones, the last.

    Args:
        boxes: `(m, 4)` in pixels.
        images: The image of each, int64 `(m,)`.
        grid: Number of images, rows and columns.
        cell: Side of a cell in pixels.

    Returns:
        The numbers of the cells, counted over all images row by row, int64 `(k,)`, and of the box of each, `(k,)`.
    """
    count, rows, columns = grid
    limit = boxes.new_tensor([columns - 1, rows - 1])
    center = (boxes[:, :2] + boxes[:, 2:]) / 2 / cell
    own = center.floor().clamp(min=torch.zeros_like(limit), max=limit)
    aside = torch.where(center - own < 0.5, -1.0, 1.0)
    steps = boxes.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]])[:, None]
    near = own + steps * aside  # (4, m, 2)
    x, y = near.long().unbind(-1)
    cells = (images * rows + y) * columns + x
    order = box_area(boxes).argsort(descending=True, stable=True)
    # the highest rank wins, on each device alike
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device)).repeat(4, 1)
    rank[0] += len(order)
    inside = ((near >= 0) & (near <= limit)).all(-1)
    owner = cells.new_full((count * rows * columns,), -1)
    owner.scatter_reduce_(0, cells[inside], rank[inside], "amax")
    taken = torch.nonzero(owner >= 0).flatten()
    return taken, order[owner[taken] % max(1, len(order))]


def _losses(confidence: Tensor, boxes: Tensor, classes: Tensor, targets: Targets, cell: int) -> dict[str, Tensor]:
    """The losses, each summed over the batch and divided by the number of cells that have an object.

    Args:
        confidence: Logits, `(n, rows, columns)`.
        boxes: `(n, rows, columns, 4)` in pixels.
        classes: Logits, `(n, rows, columns, classes)`.
        targets: The objects of each image.
        cell: Side of a cell in pixels.
    """
    true = torch.cat([target["boxes"] for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    counts = torch.tensor([len(target["labels"]) for target in targets], device=true.device)
    images = torch.arange(len(targets), device=true.device).repeat_interleave(counts)
    count, rows, columns = confidence.shape
    cells, chosen = assign(true, images, (count, rows, columns), cell)
    there = torch.zeros_like(confidence).flatten()
    there[cells] = 1
    counted = ~_in_crowds(targets, (rows, columns), cell).flatten()
    counted[cells] = True
    objects = max(1, len(cells))
    box = generalized_box_iou_loss(boxes.flatten(0, 2)[cells], true[chosen], reduction="sum")
    kind = F.cross_entropy(classes.flatten(0, 2)[cells], labels[chosen] - 1, reduction="sum")
    objectness = F.binary_cross_entropy_with_logits(confidence.flatten(), there, counted.float(), reduction="sum")
    return {
        "loss_confidence": objectness / objects,
        "loss_box": BOX_WEIGHT * box / objects,
        "loss_class": kind / objects,
    }


def _in_crowds(targets: Targets, grid: tuple[int, int], cell: int) -> Tensor:
    """Which cells have their center in a crowd, bool `(n, rows, columns)`.

    Args:
        targets: The objects of each image, and where it has any, its `crowds` `(k, 4)` in pixels.
        grid: Rows and columns.
        cell: Side of a cell in pixels.
    """
    y, x = ((torch.arange(count, device=targets[0]["boxes"].device) + 0.5) * cell for count in grid)
    found = []
    for target in targets:
        left, top, right, bottom = target.get("crowds", target["boxes"][:0]).T[..., None]
        across, down = (left <= x) & (x <= right), (top <= y) & (y <= bottom)  # (k, columns), (k, rows)
        found.append((down[:, :, None] & across[:, None]).any(0))
    return torch.stack(found)
