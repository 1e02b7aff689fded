"""Ships seen from above: hulls of all sizes and headings, their decks, and their wakes."""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from lightning_cnn.datamodules.ships.scenery import Draws, Grid

PAINTS = (
    *((186, 92, 74), (196, 108, 88)),  # red lead
    *((92, 110, 94), (112, 124, 98)),  # green
    *((172, 168, 164), (140, 142, 142), (84, 90, 92)),  # grey
    *((234, 238, 234), (246, 244, 238)),  # white
    *((152, 136, 116), (64, 84, 118)),  # tan, blue
)
WHITE = 7  # of the paints from here on the first two: boats have one of them
CARGO = 14 * 4
SHORTEST, BOAT = 7.0, 13.0  # lengths in pixels: of the smallest boat, and of a boat that is nearly a ship


@dataclass(frozen=True)
class Fleet:
    """Ships of many images, one entry each.

    Attributes:
        image: The image of each ship, int64 `(m,)`.
        x: Its middle, in pixels.
        y: Its middle, in pixels.
        heading: Direction of the bow in radians, from x towards y.
        length: In pixels.
        width: In pixels.
        bow: Where the hull begins to narrow, as a share of half the length.
        blunt: How round the bow is.
        paint: Which color.
        shade: What is added to the color, `(m, 3)`.
        house: Where the superstructure stands, -1 (stern) to 1 (bow).
        kind: 0 plain, 1 tanker, 2 bulk carrier, 3 container ship.
        cargo: Colors of the cargo, `(m, 3, CARGO)`.
        wake: Length of the wake in pixels; 0 at anchor.
        spread: Tangent of the angle of the wake's arms.
        bend: Curvature of the wake.
    """

    image: Tensor
    x: Tensor
    y: Tensor
    heading: Tensor
    length: Tensor
    width: Tensor
    bow: Tensor
    blunt: Tensor
    paint: Tensor
    shade: Tensor
    house: Tensor
    kind: Tensor
    cargo: Tensor
    wake: Tensor
    spread: Tensor
    bend: Tensor

    def __len__(self) -> int:
        """Number of ships."""
        return len(self.image)

    def select(self, chosen: Tensor) -> Self:
        """Some of the ships: bool `(m,)`, or positions."""
        return replace(self, **{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def along_and_across(self, grid: Grid) -> Grid:
        """Places in pixels ahead of the middle and to the right of each ship, each `(m, size, size)`."""
        x, y = (axis - middle.view(-1, 1, 1) for axis, middle in zip(grid, (self.x, self.y), strict=True))
        cos, sin = torch.cos(self.heading).view(-1, 1, 1), torch.sin(self.heading).view(-1, 1, 1)
        return x * cos + y * sin, y * cos - x * sin

    def outline(self, along: Tensor) -> Tensor:
        """Half the width of the hull in pixels at places along the ship."""
        share = along / (self.length / 2).view(-1, 1, 1)
        bow, blunt = self.bow.view(-1, 1, 1), self.blunt.view(-1, 1, 1)
        front = 1 - ((share - bow) / (1 - bow)).clamp(0, 1) ** blunt
        back = 1 - 0.4 * ((-0.8 - share) / 0.2).clamp(0, 1) ** 2
        return front * back * (self.width / 2).view(-1, 1, 1)


def draw_fleet(draws: Draws, side: int, most: int) -> Fleet:
    """Ships of all sizes and headings at random places, none over another.

    Args:
        draws: Of the images.
        side: Side of the images in pixels.
        most: Largest number of ships in an image; each number from none on is equally likely, before those that would
            lie over others are dropped.
    """
    n, total = draws.count, draws.count * most
    generator = draws.generator

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(total, *shape, generator=generator)

    longest = 0.62 * side
    length = SHORTEST * torch.exp(uniform(0, 1) * torch.log(torch.tensor(longest / SHORTEST)))
    is_boat = length < BOAT * uniform(0.6, 1.4)
    slender = torch.where(is_boat, uniform(2.4, 3.6), uniform(4.3, 7.5))
    moves = uniform(0, 1) < torch.where(is_boat, 0.6, 0.3)
    wake = torch.where(moves, length * torch.where(is_boat, uniform(1, 6), uniform(0.4, 2)), 0.0)
    paint = torch.randint(len(PAINTS), (total,), generator=generator)
    paint = torch.where(is_boat & (uniform(0, 1) < 0.75), WHITE + paint % 2, paint)
    house = torch.where(uniform(0, 1) < 0.75, uniform(-0.8, -0.62), uniform(-0.5, 0.6))
    kind = torch.randint(4, (total,), generator=generator) * ~is_boat
    fleet = Fleet(
        image=torch.arange(n).repeat_interleave(most),
        x=uniform(0, side),
        y=uniform(0, side),
        heading=uniform(0, 2 * torch.pi),
        length=length,
        width=(length / slender).clamp_min(2.5),
        bow=torch.where(is_boat, uniform(-0.2, 0.4), uniform(0.55, 0.85)),
        blunt=uniform(1.4, 2.6),
        paint=paint,
        shade=uniform(-14, 14, 1) + uniform(-6, 6, 3),
        house=house,
        kind=kind,
        cargo=uniform(60, 230, 1, CARGO) + uniform(-50, 50, 3, CARGO),
        wake=wake,
        spread=uniform(0.04, 0.2),
        bend=torch.where(uniform(0, 1) < 0.3, uniform(-0.012, 0.012), uniform(-0.001, 0.001)),
    )
    return fleet.select(_apart(fleet, n, most) & _wanted(n, most, generator))


def _wanted(n: int, most: int, generator: torch.Generator) -> Tensor:
    """The first few ships of each image, bool `(n * most,)`."""
    counts = torch.randint(most + 1, (n, 1), generator=generator)
    return (torch.arange(most) < counts).flatten()


def _apart(fleet: Fleet, n: int, most: int) -> Tensor:
    """Which ships keep clear of all earlier ones of their image that do, bool `(n * most,)`."""
    x, y, length = (values.view(n, most) for values in (fleet.x, fleet.y, fleet.length))
    apart = torch.hypot(x[:, :, None] - x[:, None], y[:, :, None] - y[:, None])
    clear = apart > (length[:, :, None] + length[:, None]) * 0.55
    kept = torch.ones(n, most, dtype=torch.bool)
    for later in range(1, most):
        kept[:, later] = (clear[:, later, :later] | ~kept[:, :later]).all(1)
    return kept.flatten()


def cover(fleet: Fleet, grid: Grid, finer: int) -> Tensor:
    """How much of each point the hulls cover, 0 to 1, `(m, size, size)`.

    Args:
        fleet: The ships.
        grid: x and y of the points in pixels, to be broadcast to `(m, size, size)`.
        finer: Points in a pixel, along a side.
    """
    along, across = fleet.along_and_across(grid)
    inside = torch.minimum(fleet.outline(along) - across.abs(), (fleet.length / 2).view(-1, 1, 1) - along.abs())
    return (inside * finer + 0.5).clamp(0, 1)


def decks(fleet: Fleet, grid: Grid) -> Tensor:
    """Colors of the decks of 0 to 255, `(m, 3, size, size)`, also where there is no ship."""
    along, across = fleet.along_and_across(grid)
    half = fleet.outline(along).clamp_min(0.3)
    a, b = (along / (fleet.length / 2).view(-1, 1, 1))[:, None], (across / half)[:, None]

    def of(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    color = (torch.tensor(PAINTS)[fleet.paint] + fleet.shade)[:, :, None, None]
    is_large = of(fleet.length > BOAT)
    deck = color - 16 * b  # one side is in the sun
    deck = torch.where((b.abs() > 0.72) & is_large, deck * 0.82, deck)  # the rail
    pipe = of(fleet.kind == 1) & (b.abs() < 0.16)
    deck = torch.where(pipe & (a.abs() < 0.75), deck + 32, deck)
    hatches = of(fleet.kind == 2) & (torch.cos(a * 19) > 0.1) & (b.abs() < 0.6) & (a.abs() < 0.72)
    deck = torch.where(hatches, deck - 34, deck)
    cells = ((a + 1) * 7).long().clamp(0, 13) * 4 + ((b + 1) * 2).long().clamp(0, 3)
    boxes = fleet.cargo.gather(2, cells.flatten(1)[:, None].expand(-1, 3, -1)).view(len(fleet), 3, *cells.shape[-2:])
    deck = torch.where(of(fleet.kind == 3) & (a.abs() < 0.78), boxes, deck)
    ahead = a - of(fleet.house)
    deck = torch.where((ahead.abs() < 0.22) & (ahead > 0.11) & is_large, deck * 0.62, deck)  # the shadow of the house
    house = (ahead.abs() < 0.12) & (b.abs() < 0.85)
    return torch.where(house & is_large, 232 + 0.1 * fleet.shade.mean(1).view(-1, 1, 1, 1) - 14 * b, deck)


def foam(fleet: Fleet, grid: Grid, rough: Tensor) -> Tensor:
    """Foam of the wakes, 0 to 1, `(m, size, size)`.

    Args:
        fleet: Ships that move.
        grid: x and y of the points in pixels, to be broadcast to `(m, size, size)`.
        rough: Texture of the foam of each ship's image, about -1 to 1, `(m, size, size)`.
    """
    along, across = fleet.along_and_across(grid)
    wake, width = fleet.wake.view(-1, 1, 1), fleet.width.view(-1, 1, 1)
    behind = -along - (fleet.length / 2).view(-1, 1, 1)
    across = across + fleet.bend.view(-1, 1, 1) * behind.clamp_min(0) ** 2
    age = behind.clamp_min(0) / wake
    fades = torch.exp(-1.5 * age) * (behind > -1.5) * (age < 3)
    trail = torch.exp(-((across / (0.32 * width + 0.06 * behind.clamp_min(0))) ** 2))
    arm = across.abs() - 0.42 * width - fleet.spread.view(-1, 1, 1) * behind
    arms = torch.exp(-((arm / (0.5 + 0.12 * width)) ** 2))
    # the bow throws foam to both sides of the hull
    beside = across.abs() - fleet.outline(along.clamp(-behind.abs(), None)) - 0.4
    hull = torch.exp(-((beside / 0.7) ** 2)) * (behind < 0) * (along < (fleet.length / 2).view(-1, 1, 1)) * 0.35
    whole = (torch.maximum(trail * 0.85, arms * 0.75)) * fades * (0.8 + 0.3 * rough) + hull
    return whole.clamp(0, 1)
