"""Draws scenes of ships at sea, with the pixels and the box of each ship."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightning_cnn.datamodules.detection.annotations import CROWD, BoxAnnotations
from lightning_cnn.datamodules.ships.hulls import Fleet, cover, decks, draw_fleet, foam
from lightning_cnn.datamodules.ships.scenery import CLOUD, FOAM, Draws, Grid, draw_clouds, draw_land, draw_sea
from lightning_cnn.options import IGNORE

POINTS = 2**19  # rendered at once: more don't fit into the processor's cache
LAND, CLOUDY = 0.45, 0.2  # shares of the images
FINER = 2  # images are rendered so many times larger and then averaged
FEWEST = 4  # pixels of the smallest ship
HIDDEN = 0.5  # opacity of a cloud from which the pixels beneath are unknown, and share of such pixels of a ship


@dataclass(frozen=True)
class Scenes:
    """Rendered images of ships.

    Attributes:
        images: uint8 `(n, 3, side, side)`.
        masks: uint8 `(n, side, side)`: 1 in ships, 0 elsewhere, `IGNORE` where clouds hide a ship.
        ships: The ships with their boxes, all of class 0; a crowd region where clouds hide most of a ship.
    """

    images: Tensor
    masks: Tensor
    ships: BoxAnnotations


def render(count: int, side: int, seed: int, most: int) -> Scenes:
    """Draws scenes of ships. The first images of a seed do not depend on their number.

    Args:
        count: Number of images.
        side: Their side in pixels.
        seed: Of all draws.
        most: Largest number of ships in an image.
    """
    generator = torch.Generator().manual_seed(seed)
    step = max(1, POINTS // (side * FINER) ** 2)
    parts = [_chunk(Draws(step, generator), side, most) for _ in range(0, count, step)]
    images, masks, tables = (list(part) for part in zip(*parts, strict=True))
    first = np.repeat(np.arange(len(tables)) * step, [len(table) for table in tables])
    rows = np.concatenate(tables)
    rows[:, 0] += first
    rows = rows[rows[:, 0] < count]
    ships = BoxAnnotations(
        names=[f"scene {number}" for number in range(count)],
        starts=np.searchsorted(rows[:, 0], np.arange(count + 1)).astype(np.int64),
        classes=rows[:, 1].astype(np.int64),
        boxes=rows[:, 2:].astype(np.float32),
        sizes=np.full((count, 2), side, dtype=np.int64),
    )
    return Scenes(torch.cat(images)[:count], torch.cat(masks)[:count], ships)


@dataclass(frozen=True)
class Patches:
    """Ships of similar length, each in a window of one size: to draw each over its whole image would take long.

    Attributes:
        fleet: The `m` ships.
        left: Where the windows begin, in points, int64 `(m,)`.
        top: The same.
        size: Side of the windows in points.
        hulls: How much of each point the hulls cover, `(m, size, size)`.
    """

    fleet: Fleet
    left: Tensor
    top: Tensor
    size: int
    hulls: Tensor

    @classmethod
    def around(cls, fleet: Fleet, size: int, whole: int) -> "Patches":
        """The windows around ships that fit into them, in images of `whole` points."""
        left, top = (
            ((middle * FINER - size / 2) / FINER).round().long().mul(FINER).clamp(0, whole - size)
            for middle in (fleet.x, fleet.y)
        )
        found = cls(fleet, left, top, size, torch.empty(0))
        return replace(found, hulls=cover(fleet, found.grid, FINER))

    def select(self, chosen: Tensor) -> "Patches":
        """Some of the ships: bool `(m,)`."""
        left, top, hulls = self.left[chosen], self.top[chosen], self.hulls[chosen]
        return Patches(self.fleet.select(chosen), left, top, self.size, hulls)

    @property
    def grid(self) -> Grid:
        """Coordinates x `(m, 1, size)` and y `(m, size, 1)` of the points of the windows, in pixels."""
        places = torch.arange(self.size) + 0.5
        x, y = ((start[:, None] + places) / FINER for start in (self.left, self.top))
        return x[:, None, :], y[:, :, None]

    def of(self, images: Tensor, step: int = 1) -> Iterator[Tensor]:
        """The windows in images `(n, channels, whole, whole)`, which share their memory.

        Args:
            images: The images.
            step: Points of the windows in one of the images, along a side.
        """
        size = self.size // step
        for row, left, top in zip(self.fleet.image.tolist(), self.left.tolist(), self.top.tolist(), strict=True):
            yield images[row, :, top // step : top // step + size, left // step : left // step + size]

    @property
    def ships(self) -> Tensor:
        """The pixels of each ship: bool, `(m, size / FINER, size / FINER)`."""
        return F.avg_pool2d(self.hulls[:, None], FINER)[:, 0] >= 0.5


def _chunk(draws: Draws, side: int, most: int) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Images, masks, and rows of image, class, left, top, right, bottom."""
    size = side * FINER
    places = (torch.arange(size) + 0.5) / FINER
    grid = places[None], places[:, None]
    image = draw_sea(draws, grid, draws.uniform() ** 1.5)
    has_land = torch.nonzero(draws.happens(LAND).flatten()).flatten()
    land, is_land = draw_land(draws.some(len(has_land)), grid, side)
    solid = torch.zeros(draws.count, 1, size, size)
    solid[has_land] = is_land
    groups = _afloat(draw_fleet(draws, side, most), solid)
    for group in groups:
        image = _with_wakes(draws, image, group.fleet, grid)
    hulls, painted = torch.zeros(draws.count, 1, size, size), torch.zeros(draws.count, 3, size, size)
    for group in groups:
        colors = decks(group.fleet, group.grid) * group.hulls[:, None]
        drawn = zip(group.of(hulls), group.of(painted), group.hulls, colors, strict=True)
        for there, shown, hull, color in drawn:
            there += hull
            shown += color
    shadows = F.pad(hulls, (FINER, 0, FINER, 0))[..., :size, :size]  # by a pixel to the right and down
    image = image * (1 - draws.uniform(0.1, 0.4) * shadows)
    image[has_land] += (land - image[has_land]) * is_land
    image = image * (1 - hulls) + painted
    clouds = torch.zeros(draws.count, 1, size, size)
    is_cloudy = torch.nonzero(draws.happens(CLOUDY).flatten()).flatten()
    clouds[is_cloudy], shades = draw_clouds(draws.some(len(is_cloudy)), size)
    darker = image[is_cloudy] * (1 - shades)
    image[is_cloudy] = darker + (draws.color(CLOUD, 8)[is_cloudy] - darker) * clouds[is_cloudy]
    masks, table = _labels(groups, F.avg_pool2d(clouds, FINER) > HIDDEN)
    return _photograph(draws, F.avg_pool2d(image, FINER)), masks, table


def _afloat(fleet: Fleet, solid: Tensor) -> list[Patches]:
    """The ships that float, by length; `solid` is where they can't, `(n, 1, size, size)`."""
    whole, groups = solid.shape[-1], []
    sizes = [whole // 8 * FINER, whole // 4 * FINER, whole]
    need = (fleet.length + 4) * FINER
    fits = torch.stack([need <= size for size in sizes[:-1]] + [need > 0]).int().argmax(0)
    for number, size in enumerate(sizes):
        if not (fits == number).any():
            continue
        group = Patches.around(fleet.select(fits == number), size, whole)
        blocked = torch.stack([(part[0] * hull).sum() for part, hull in zip(group.of(solid), group.hulls, strict=True)])
        groups.append(group.select((blocked == 0) & (group.ships.sum((1, 2)) >= FEWEST)))
    return groups


def _labels(groups: list[Patches], is_hidden: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
    """Masks, and rows of image, class, left, top, right, bottom.

    Args:
        groups: The ships.
        is_hidden: Where clouds hide everything, bool `(n, 1, side, side)`.
    """
    masks = torch.zeros(is_hidden.shape, dtype=torch.uint8)
    rows = []
    for group in groups:
        parts = zip(group.of(masks, FINER), group.of(is_hidden, FINER), group.ships, strict=True)
        corners = zip(group.fleet.image.tolist(), group.left.tolist(), group.top.tolist(), strict=True)
        for (mask, hidden, ship), (image, left, top) in zip(parts, corners, strict=True):
            unseen = hidden[0] & ship
            is_lost = bool(unseen.sum() > HIDDEN * ship.sum())
            mask[0, ship] = 1
            mask[0, ship if is_lost else unseen] = IGNORE
            across, down = (ship.any(dimension).nonzero().flatten().tolist() for dimension in (0, 1))
            x, y = left // FINER, top // FINER
            box = [x + across[0], y + down[0], x + across[-1] + 1, y + down[-1] + 1]
            rows.append([image, CROWD if is_lost else 0, *box])
    rows.sort(key=lambda row: row[0])
    return masks[:, 0], np.array(rows, dtype=np.int64).reshape(-1, 6)


def _with_wakes(draws: Draws, image: Tensor, fleet: Fleet, grid: Grid) -> Tensor:
    """Images `(n, 3, size, size)` with the wakes of the ships that move."""
    moving = fleet.select(fleet.wake > 0)
    if not len(moving):
        return image
    size = image.shape[-1]
    rough = draws.noise(size, size // 4)[:, 0]
    trails = foam(moving, grid, rough[moving.image])
    white = torch.zeros(draws.count, size, size)
    for number in range(int(torch.bincount(moving.image, minlength=1).max())):  # one ship of each image at a time
        starts = torch.searchsorted(moving.image, torch.arange(draws.count))
        rows = torch.nonzero(torch.arange(len(moving)) - starts[moving.image] == number).flatten()
        white[moving.image[rows]] = torch.maximum(white[moving.image[rows]], trails[rows])
    strength = white[:, None] * draws.uniform(0.55, 1.0)
    return image + (draws.color(FOAM) - image) * strength


def _photograph(draws: Draws, images: Tensor) -> Tensor:
    """What a camera makes of colors of 0 to 255: blur, haze, exposure and noise. uint8, of the same shape."""
    share = draws.uniform(0, 0.13)  # of each neighbor in the blur
    kernel = torch.stack([share, 1 - 2 * share, share], 3).view(-1, 1, 1, 3).repeat_interleave(3, 0)
    flat = F.pad(images, (1, 1, 1, 1), mode="replicate").view(1, -1, images.shape[2] + 2, images.shape[3] + 2)
    flat = F.conv2d(F.conv2d(flat, kernel, groups=len(kernel)), kernel.mT, groups=len(kernel))
    images = flat.view_as(images)
    haze = draws.uniform(0, 0.12)
    images = (images * (1 - haze) + 200 * haze) * draws.uniform(0.85, 1.15)
    noise = torch.randn(images.shape, generator=draws.generator) * draws.uniform(0.5, 3.5)
    return (images + noise).round().clamp(0, 255).to(torch.uint8)
