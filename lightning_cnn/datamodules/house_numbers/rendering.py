"""Draws house numbers: digits of fonts or of real handwriting in given boxes, on walls of many colors."""

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.datamodules.house_numbers.annotations import DigitAnnotations

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmss10", "cmtt10", "cmb10"),
)
GLYPH = 48  # side of a glyph in the atlas, in pixels
CHUNK = 512
FINER = 2  # images are rendered so many times larger and then averaged
GREY = (0.2989, 0.5870, 0.1140)
BLURS = (0.0, 0.5, 0.8, 1.2, 1.7, 2.4)  # standard deviations in pixels of the rendered image
INK = 64  # what is lighter belongs to a handwritten digit, of 255
NARROWEST = 0.4  # width by height of a handwritten digit that fills its box
NEIGHBOURS = 0.25  # usual in crops


def render(
    annotations: DigitAnnotations,
    frames: NDArray[np.int64],
    size: tuple[int, int],
    color: bool,
    seed: int,
    handwriting: float = 0.0,
    handwritten: tuple[Tensor, Tensor] | None = None,
    neighbours: float = NEIGHBOURS,
) -> tuple[Tensor, Tensor]:
    """Draws the numbers of some images, each digit in its box.

    Args:
        annotations: Lengths, digits and boxes of `n` images with `m` digits.
        frames: The part of each image to draw, `(n, 4)`: left, top, right, bottom in its pixels.
        size: Height and width in pixels to which that part is stretched.
        color: Whether the images have three channels, or one by the weights .2989, .5870, .1140.
        seed: Of all draws.
        handwriting: Share of the numbers that are written by hand.
        handwritten: Handwritten digits, uint8 `(k, height, width)`, white on black, and their classes `(k,)`; needed
            where `handwriting` is above 0.
        neighbours: Share of the numbers with a further digit beside them, on each side, that has no box.

    Returns:
        The images, uint8 `(n, 3 or 1, height, width)`; and the boxes of all digits as rendered, float32 `(m, 4)`: left,
        top, right, bottom in pixels of the rendered image. They hold the turned and slanted digits whole, and may reach
        beyond the image.

    Raises:
        ValueError: If handwriting is asked for without handwritten digits.
    """
    if handwriting and handwritten is None:
        raise ValueError(f"handwriting {handwriting} needs handwritten digits")
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(len(annotations), 3 if color else 1, *size, dtype=torch.uint8)
    boxes = torch.empty(len(annotations.digits), 4)
    written = _by_class(handwritten) if handwritten else []
    for start in range(0, len(annotations), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(annotations)))
        part = annotations.select(rows)
        rendered, hulls = _draw(part, frames[rows], size, generator, handwriting, written, neighbours)
        if not color:
            rendered = (rendered * torch.tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)
        images[start : start + len(rows)] = (rendered * 255).round().to(torch.uint8)
        boxes[annotations.starts[start] : annotations.starts[rows[-1] + 1]] = hulls
    return images, boxes


def _draw(
    annotations: DigitAnnotations,
    frames: NDArray[np.int64],
    size: tuple[int, int],
    generator: torch.Generator,
    handwriting: float,
    written: list[Tensor],
    neighbours: float,
) -> tuple[Tensor, Tensor]:
    """Draws one chunk; see `render`. Images are float, 0 to 1, `(n, 3, height, width)`.

    `written` holds the handwritten images of each digit.
    """
    n, (height, width) = len(annotations), size

    frame = torch.from_numpy(frames).float()
    scale = torch.tensor([width, height]) / (frame[:, 2:] - frame[:, :2])
    rows, starts = torch.from_numpy(annotations.rows), torch.from_numpy(annotations.starts)
    place = torch.arange(len(rows)) - starts[rows]
    boxes = torch.from_numpy(annotations.boxes).view(-1, 2, 2)
    boxes = ((boxes - frame[rows, None, :2]) * scale[rows, None]).flatten(1)

    # every number leans, turns and slants as a whole, about its middle, in the proportions of the photo
    low = np.minimum.reduceat(boxes[:, :2].numpy(), annotations.starts[:-1])
    high = np.maximum.reduceat(boxes[:, 2:].numpy(), annotations.starts[:-1])
    centre = torch.from_numpy((low + high) / 2)
    angle = torch.randn(n, generator=generator) * 0.06
    slant = torch.randn(n, generator=generator) * 0.10
    turn = torch.stack([torch.cos(angle), slant - torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).view(
        n, 2, 2
    )
    turn = turn * (scale[:, :, None] / scale[:, None, :])
    back = torch.linalg.inv(turn)

    font = torch.randint(len(FONTS), (n,), generator=generator)
    digits = torch.from_numpy(annotations.digits).long()
    chosen = font[rows] * 10 + digits
    by_hand = (torch.rand(n, generator=generator) < handwriting)[rows]
    lot = torch.rand(len(rows), generator=generator)
    glyphs = [_printed()]
    for digit, images in enumerate(written):
        mine = torch.nonzero(by_hand & (digits == digit)).flatten()
        if len(images) and len(mine):  # only what is used is cut out: the whole of MNIST would take 500 MB
            used = (lot[mine] * len(images)).long().clamp_max(len(images) - 1)
            chosen[mine] = sum(map(len, glyphs)) + torch.arange(len(mine))
            glyphs.append(torch.stack([_tight(images[number]) for number in used.tolist()]))
    atlas = torch.cat(glyphs)

    # one digit of each number at a time, because a number must not be written to twice at once
    numbers = [place == number for number in range(int(annotations.lengths.max()))]
    layers = [(boxes[mine], chosen[mine], rows[mine]) for mine in numbers]
    # parts of further digits to the left and right, as at the edges of real crops
    for side in (-1, 1):
        mine = torch.nonzero(torch.rand(n, generator=generator) < neighbours).flatten()
        edge = boxes[starts[mine]] if side < 0 else boxes[starts[mine + 1] - 1]
        wide = (edge[:, 2] - edge[:, 0]) * (1 + 0.2 * torch.rand(len(mine), generator=generator))
        apart = (edge[:, 3] - edge[:, 1]) * (0.02 + 0.25 * torch.rand(len(mine), generator=generator))
        near = edge[:, 2] + apart if side > 0 else edge[:, 0] - apart - wide
        beside = torch.stack([near, edge[:, 1], near + wide, edge[:, 3]], 1)
        layers.append((beside, font[mine] * 10 + torch.randint(10, (len(mine),), generator=generator), mine))

    big = height * FINER, width * FINER
    y, x = torch.meshgrid(*((torch.arange(side) + 0.5) / FINER for side in big), indexing="ij")
    points = torch.stack([x, y], -1).view(1, -1, 2)
    straight = (points - centre[:, None]) @ back.mT + centre[:, None]
    ink = torch.zeros(n, 1, *big)
    for box, glyph, row in layers:
        half = (box[:, 2:] - box[:, :2]).clamp_min(1) / 2
        middle = (box[:, 2:] + box[:, :2]) / 2
        grid = ((straight[row] - middle[:, None]) / half[:, None]).view(len(row), *big, 2)
        ink[row] = torch.maximum(ink[row], F.grid_sample(atlas[glyph], grid, align_corners=False))

    ink = F.avg_pool2d(ink, FINER)
    images = _paint(ink, size, generator)
    images = _spoil(images, scale, size, generator)
    corners = torch.stack([boxes[:, [0, 1]], boxes[:, [2, 1]], boxes[:, [0, 3]], boxes[:, [2, 3]]], 1)
    turned = (corners - centre[rows, None]) @ turn[rows].mT + centre[rows, None]
    return images, torch.cat([turned.amin(1), turned.amax(1)], 1)


def _paint(ink: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Gives the digits and the wall their colors, with light, shadow and stains."""
    n = len(ink)

    def rand(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator)

    wall, other = rand(3, 1, 1), rand(3, 1, 1)
    grey = rand(1, 1, 1) < 0.7  # most walls and digits have little color
    wall = torch.where(grey, wall.mean(1, keepdim=True) + 0.08 * (wall - 0.5), wall)
    other = torch.where(grey, other.mean(1, keepdim=True) + 0.08 * (other - 0.5), other)
    # the digits are lighter or darker than the wall by so much
    contrast = (0.12 + 0.6 * rand(1, 1, 1)) * torch.where(wall.mean(1, keepdim=True) > 0.2 + 0.6 * rand(1, 1, 1), -1, 1)
    digits = wall + contrast + 0.25 * (other - other.mean(1, keepdim=True))
    stains = torch.zeros(n, 1, *size)
    for cells in (3, 6, 12):
        noise = torch.randn(n, 1, cells, cells, generator=generator)
        stains += F.interpolate(noise, size, mode="bicubic") * rand(1, 1, 1) * 0.06
    y, x = torch.meshgrid(*(torch.linspace(-0.5, 0.5, side) for side in size), indexing="ij")
    light = (x * (rand(1, 1, 1) - 0.5) + y * (rand(1, 1, 1) - 0.5)) * 0.7
    # frames and edges of plates: a straight border somewhere, beyond which the wall has another color
    edge = torch.where(rand(1, 1, 1) < 0.5, x, y) - (0.36 + 0.2 * rand(1, 1, 1)) * torch.sign(rand(1, 1, 1) - 0.5)
    beyond = ((edge.abs() < 0.02 + 0.05 * rand(1, 1, 1)) & (rand(1, 1, 1) < 0.25)).float()
    image = wall + beyond * (other - wall) * 0.7
    shadow = F.pad(ink, (1, 0, 1, 0))[..., :-1, :-1]  # by a pixel to the right and down
    image = image - 0.25 * shadow * (rand(1, 1, 1) < 0.3)
    image = image * (1 - ink) + digits * ink
    return (image + stains + light).clamp(0, 1)


def _spoil(images: Tensor, scale: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Blurs as much as the enlargement of the photo and its focus ask for, and adds noise."""
    n = len(images)
    blur = 0.35 * scale.amax(1) + 0.5 * torch.rand(n, generator=generator) ** 2
    level = (blur[:, None] - torch.tensor(BLURS)).abs().argmin(1)
    for number, sigma in enumerate(BLURS):
        mine = level == number
        if sigma and mine.any():
            reach = int(np.ceil(2.5 * sigma))
            bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
            bell = (bell / bell.sum()).view(1, 1, -1).repeat(3, 1, 1)
            part = F.pad(images[mine], (reach,) * 4, mode="replicate")
            part = F.conv2d(part, bell[:, :, None, :], groups=3)
            images[mine] = F.conv2d(part, bell[:, :, :, None], groups=3)
    noise = torch.randn(images.shape, generator=generator) * 0.05 * torch.rand(n, 1, 1, 1, generator=generator)
    return (images + noise).clamp(0, 1)


@lru_cache(maxsize=1)
def _printed() -> Tensor:
    """The digits of all fonts, each stretched to a square: float `(fonts * 10, 1, GLYPH, GLYPH)`, 1 is ink."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = []
    for name in FONTS:
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 3 * GLYPH)
        for digit in "0123456789":
            sheet = Image.new("L", (6 * GLYPH, 6 * GLYPH))
            ImageDraw.Draw(sheet).text((GLYPH, GLYPH), digit, fill=255, font=font)
            found.append(sheet.crop(sheet.getbbox()).resize((GLYPH, GLYPH), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.stack([np.array(glyph) for glyph in found])).float()[:, None] / 255


def _by_class(handwritten: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The handwritten images of each digit that have ink."""
    images, classes = handwritten
    inked = images.amax((1, 2)) > INK
    return [images[inked & (classes == digit)] for digit in range(10)]


def _tight(image: Tensor) -> Tensor:
    """The ink of an image, stretched to a square, `(1, GLYPH, GLYPH)`."""
    rows, columns = (image > INK).any(1).nonzero(), (image > INK).any(0).nonzero()
    cut = image[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1].float() / 255
    missing = max(0, round(NARROWEST * cut.shape[0]) - cut.shape[1])  # or a thin 1 would become a bar
    cut = F.pad(cut, (missing // 2, missing - missing // 2))
    return F.interpolate(cut[None, None], (GLYPH, GLYPH), mode="bilinear")[0]
