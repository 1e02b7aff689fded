"""What ships are seen in: the sea, coasts with their harbors, and clouds."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[Tensor, Tensor]

# colors of 0 to 255, measured in true-color scenes of harbors at 3 m a pixel, and others of clear and of turbid water
SEAS = ((79, 92, 75), (44, 57, 52), (28, 46, 66), (58, 88, 92), (96, 100, 84))
SAND, ROAD, QUAY, FOAM, CLOUD = (226, 207, 178), (150, 142, 130), (172, 158, 138), (214, 222, 214), (240, 240, 242)
TOWN, GREEN = (185, 172, 154), (112, 108, 84)
TABLE = 16  # the houses of a town repeat after so many in both directions


class Draws:
    """Random numbers for a chunk of images.

    Args:
        count: Number of images.
        generator: The source of the draws.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count = count
        self.generator = generator

    def uniform(self, low: float = 0.0, high: float = 1.0, *shape: int) -> Tensor:
        """Of each image, `(count, *shape)`; without a shape `(count, 1, 1, 1)`, to be combined with images."""
        values = torch.rand(self.count, *(shape or (1, 1, 1)), generator=self.generator)
        return low + (high - low) * values

    def happens(self, share: float) -> Tensor:
        """1 in a share of the images, 0 in the others, `(count, 1, 1, 1)`."""
        return (self.uniform() < share).float()

    def noise(self, size: int, *cells: int) -> Tensor:
        """Smooth noise of about unit deviation, `(count, 1, size, size)`: a sum over sizes of cells, halved each."""
        found = torch.zeros(self.count, 1, size, size)
        for octave, number in enumerate(cells):
            values = torch.randn(self.count, 1, number, number, generator=self.generator)
            weights = _weights(size, number)  # of a bicubic interpolation, which is slower as one
            found += (weights @ values @ weights.mT) * 0.5**octave
        return found

    def some(self, count: int) -> "Draws":
        """The same source for a part of the images."""
        return Draws(count, self.generator)

    def color(self, base: Tensor | tuple[int, ...], spread: float = 12.0) -> Tensor:
        """A color near another for each image, `(count, 3, 1, 1)`: `spread` brightens it, a third of it tints it."""
        colors = torch.as_tensor(base, dtype=torch.float32).view(-1, 3, 1, 1)
        tint = self.uniform(-spread / 3, spread / 3, 3, 1, 1)
        return colors + self.uniform(-spread, spread) + tint


@lru_cache(maxsize=64)
def _weights(size: int, cells: int) -> Tensor:
    """How the values of cells make those of points, `(size, cells)`."""
    return F.interpolate(torch.eye(cells)[None, None], (size, cells), mode="bicubic")[0, 0]


def draw_sea(draws: Draws, grid: Grid, state: Tensor) -> Tensor:
    """Water with swell, streaks and whitecaps.

    Args:
        draws: Of the images.
        grid: x `(1, size)` and y `(size, 1)` of the points in pixels.
        state: Sea state of each image, 0 (calm) to 1 (storm), `(n, 1, 1, 1)`.

    Returns:
        Colors of 0 to 255, `(n, 3, size, size)`.
    """
    x, y = grid
    size = len(y)
    chosen = torch.randint(len(SEAS), (draws.count,), generator=draws.generator)
    water = draws.color(torch.tensor(SEAS)[chosen], 8) + draws.noise(size, 2, 4) * draws.uniform(0, 5)
    wind = draws.uniform(0, 2 * torch.pi)
    waves = torch.zeros(draws.count, 1, size, size)
    for number in range(3):
        angle = wind + draws.uniform(-0.35, 0.35)
        length = draws.uniform(2.2, 4.5) * (1 + number * draws.uniform(0, 1))
        along = x * torch.cos(angle) + y * torch.sin(angle)
        waves += torch.sin(2 * torch.pi * (along / length + draws.uniform()) + draws.noise(size, 6)) / 3
    waves = waves * (0.6 + 0.4 * draws.noise(size, 8))
    grain = torch.randn(draws.count, 1, size, size, generator=draws.generator)
    caps = (F.avg_pool2d(grain, 3, 1, 1) * 3 + waves > 4.6 - 1.6 * state) & (state > 0.45)
    water = water + waves * (1 + 9 * state) + grain * (1 + 3 * state)
    return torch.where(caps, 0.45 * water + 0.55 * draws.color(FOAM), water)


def draw_land(draws: Draws, grid: Grid, side: int) -> tuple[Tensor, Tensor]:
    """A coast with a town, fields, beaches and piers; or an island, or a breakwater.

    Args:
        draws: Of the images.
        grid: x `(1, size)` and y `(size, 1)` of the points in pixels.
        side: Side of the images in pixels.

    Returns:
        Colors of 0 to 255, `(n, 3, size, size)`, and how much of them covers the water, 0 to 1, `(n, 1, size, size)`.
    """
    x, y = grid
    size = len(y)
    what = draws.uniform()
    has_coast, has_island = what < 0.7, (what > 0.62) & (what < 0.88)
    angle, away = draws.uniform(0, 2 * torch.pi), draws.uniform(-0.45, 0.2) * side
    across = (x - side / 2) * torch.cos(angle) + (y - side / 2) * torch.sin(angle)
    along = (y - side / 2) * torch.cos(angle) - (x - side / 2) * torch.sin(angle)
    rough = draws.noise(size, 3, 6, 12, 24) * draws.uniform(0, 0.07) * side  # quays are straight, bays are not
    nowhere = -4.0 * side
    depth = torch.where(has_coast, away - across + rough, nowhere)
    at = draws.uniform(0, side), draws.uniform(0, side)
    radius = draws.uniform(0.03, 0.17) * side
    far = torch.hypot(x - at[0], y - at[1]) * (1 + 0.2 * draws.noise(size, 4, 8))
    depth = torch.where(has_island, torch.maximum(depth, radius - far), depth)
    # piers lead from the coast into the water, breakwaters run anywhere
    reach, wide = draws.uniform(0.05, 0.4) * side, draws.uniform(0.6, 3.5)
    piers = torch.full_like(depth, nowhere)
    for _ in range(2):
        beside = wide - (along - draws.uniform(-0.5, 0.5) * side).abs()
        pier = torch.minimum(beside, reach - (across - away).abs())
        piers = torch.where((draws.happens(0.5) > 0) & has_coast, torch.maximum(piers, pier), piers)
    wall = draws.uniform(0.5, 1.3) - (across - draws.uniform(-0.4, 0.4) * side).abs()
    wall = torch.minimum(wall, draws.uniform(0.1, 0.6) * side - along.abs())
    piers = torch.where(what > 0.85, torch.maximum(piers, wall), piers)

    fields = draws.color(GREEN, 25) + 22 * draws.noise(size, 8, 16, 32)
    land = torch.where(draws.happens(0.3) > 0, fields, _town(draws, grid, size))
    sand = draws.color(SAND) + 4 * draws.noise(size, 24)
    land = torch.where(depth < draws.uniform(-2, 7), sand, land)
    built = draws.color(QUAY, 25) + 12 * draws.noise(size, 12, 24)
    land = torch.where(piers > depth, built, land)
    return land, (torch.maximum(depth, piers) * 2 + 0.5).clamp(0, 1)


def _town(draws: Draws, grid: Grid, size: int) -> Tensor:
    """Blocks of houses between roads, `(n, 3, size, size)`."""
    x, y = grid
    angle, house = draws.uniform(0, torch.pi), draws.uniform(2.5, 7)
    turned = (
        (x * torch.cos(angle) + y * torch.sin(angle)) / house,
        (y * torch.cos(angle) - x * torch.sin(angle)) / house,
    )
    cell = (turned[0].floor().long() % TABLE) * TABLE + turned[1].floor().long() % TABLE
    roofs = draws.uniform(-75, 70, TABLE * TABLE)
    bright = roofs.gather(1, cell.flatten(1)).view_as(cell)
    block = draws.uniform(2, 5).floor()  # houses between two roads
    is_road = ((turned[0] % block) < 0.45) | ((turned[1] % (block + 1)) < 0.4)
    grain = draws.noise(size, size // 2) * 14
    return torch.where(is_road, draws.color(ROAD), draws.color(TOWN) + bright) + grain


def draw_clouds(draws: Draws, size: int) -> tuple[Tensor, Tensor]:
    """Clouds and their shadows.

    Returns:
        Opacity of the clouds, and darkness of the shadows, 0 to 1, each `(n, 1, size, size)`.
    """
    shift = size // 5
    dense = draws.noise(size + shift, 3, 7, 14, 28) / 1.15
    cover = ((dense - draws.uniform(0.2, 1.5)) * draws.uniform(0.6, 2.5)).clamp(0, 1) * draws.uniform(0.5, 1.0)
    return cover[:, :, shift:, shift:], cover[:, :, :size, :size] * 0.4
