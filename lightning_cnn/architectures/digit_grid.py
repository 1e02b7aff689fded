"""A compact one-stage detector: each cell of a grid over the image answers for the object whose center lies in it.

Source: Redmon et al., "You Only Look Once: Unified, Real-Time Object Detection" (2016), sections 2 and 2.2. As there,
one pass over the image gives each cell a confidence, a box, and the classes given an object; one cell is responsible
for each object; sizes are shares of the image's; the box weighs five times as much as the rest. It differs in that

- the grid is fine (a cell of 8 x 8 pixels), so that one box a cell is enough, and coarse features are added to it from
  the whole image (Lin et al. 2017), where the paper has a dense layer over all of it;
- a center may lie half a cell outside its cell (Bochkovskiy et al. 2020), so that no offset needs an infinite input;
- the box learns by its overlap with the true one (generalized IoU, Rezatofighi et al. 2019), confidence and classes
  by cross-entropies, where the paper squares all errors. The confidence learns whether there is an object, where that
  of the paper learns the overlap, too;
- batch normalization and ReLU, and no pre-training.
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
    """A convolution of 3 x 3 with batch normalization and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class GridBackbone(nn.Module):
    """Features of each cell, `(n, WIDTH, side / 8, side / 8)`, of images `(n, in_chans, side, side)`.

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
        """The features of the finest grid, with those of the coarser ones added."""
        levels, x = [], images
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        fine, middle, coarse = (lateral(level) for lateral, level in zip(self.laterals, levels[2:], strict=True))
        middle = middle + F.interpolate(coarse, size=middle.shape[-2:])
        features: Tensor = self.smooth(fine + F.interpolate(middle, size=fine.shape[-2:]))
        return features


class DigitGrid(nn.Module):
    """The detector, called as those of torchvision are.

    Args:
        num_classes: Number of classes with the background, which is class 0.
        in_chans: Channels of the images.
        score_threshold: Detections below this score are not given.
        overlap: Of two detections of a class that overlap by a larger IoU, the surer is given.
        detections_per_image: So many at most are given.
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
        """Losses in training, detections otherwise.

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
        """The detections of each image: P(object) times P(class) (Redmon et al. 2016, equation 1), without doubles."""
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
    """What the cells answer as boxes: left, top, right, bottom in pixels.

    Args:
        raw: `(n, rows, columns, 4)`: place of the center in the cell, and size.
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
    """Which cell is responsible for which box: the one in which its center lies.

    Where the centers of several boxes of an image lie in one cell, it answers for the smallest; of equally small ones,
    for the last.

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
    """The losses, each a sum over the batch divided by the number of its objects.

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
