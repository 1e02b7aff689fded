"""Sliding windows: the classes of the pixels of a scene, tile by tile, in memory that its height does not change."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cnn.errors import UserError, check

MULTIPLE = 32  # of the sides of tiles, and of whole images, which are extended by their border: as in validation
PIXELS = 2**20  # of all tiles that are computed at once, unless one has more
Read = Callable[[int, int, int, int], Tensor]  # top, left, height, width -> uint8 (channels, height, width)
Compute = Callable[[Tensor], Tensor]  # uint8 (n, channels, height, width) -> probabilities (n, classes, height, width)


@dataclass(frozen=True)
class Tiling:
    """How a scene is divided into tiles.

    Neighboring tiles share `overlap` pixels. Of these the outer third of each tile does not count, because it has seen
    the least of its surroundings; in the middle third the weight passes from one tile to the other.

    Attributes:
        tile: Side of the tiles in pixels; None takes the whole scene as one.
        overlap: Pixels that neighbors share.
    """

    tile: int | None = None
    overlap: int = 0

    @classmethod
    def of(cls, tile: int | None, overlap: int | None) -> "Tiling":
        """From the options of `predict`.

        Raises:
            UserError: If they don't fit.
        """
        if tile is None:
            if overlap is not None:
                raise UserError("`overlap` requires `tile`")
            return cls()
        overlap = 64 if overlap is None else overlap
        check("tile", tile, least=MULTIPLE)
        check("overlap", overlap, least=0)
        for name, value in {"tile": tile, "overlap": overlap}.items():
            if value % MULTIPLE:
                raise UserError(
                    f"`{name}` {value} is not a multiple of {MULTIPLE}: try {-(-value // MULTIPLE) * MULTIPLE}"
                )
        if 2 * overlap > tile:
            raise UserError(f"`overlap` {overlap} is more than half of `tile` {tile}: reduce it, or take larger tiles")
        return cls(tile, overlap)

    def spans(self, length: int) -> list[tuple[int, int]]:
        """First pixel and length of each tile along a side of the scene; the last ends at a multiple of 32.

        Args:
            length: Pixels of the side.
        """
        end = -(-length // MULTIPLE) * MULTIPLE
        if self.tile is None or self.tile >= end:
            return [(0, end)]
        step = self.tile - self.overlap
        count = 1 + -(-(end - self.tile) // step)
        return [(first, min(self.tile, end - first)) for first in range(0, count * step, step)]

    def ramp(self) -> Tensor:
        """Weights of a tile where it begins, over the pixels shared with the one before: 0, rising to 1, 1."""
        third = self.overlap / 3
        return ((torch.arange(self.overlap) + 0.5 - third) / max(third, 1)).clamp(0, 1)


@dataclass
class Classes:
    """Rows of classes as they become known.

    Attributes:
        difference: Largest difference of the probabilities of two tiles where both count.
    """

    tiling: Tiling
    difference: float = 0.0

    def rows(self, read: Read, compute: Compute, height: int, width: int, batch_size: int) -> Iterator[Tensor]:
        """The classes of a scene from top to bottom.

        Args:
            read: Reads a window of the scene.
            compute: Computes probabilities.
            height: Height of the scene.
            width: Width of the scene.
            batch_size: Tiles to compute at once.

        Yields:
            uint8 `(rows, width)`.
        """
        before: Tensor | None = None  # of the tiles above, the rows that the next ones share
        shared, ramp = self.tiling.overlap, self.tiling.ramp()
        spans = self.tiling.spans(height)
        for number, (top, side) in enumerate(spans):
            band = self._band(read, compute, top, side, width, batch_size)
            if before is not None:
                band[:, :shared] = self._blended(before, band[:, :shared], ramp[:, None])
            is_last = number == len(spans) - 1
            done = side if is_last else side - shared
            before = band[:, done:].clone()
            yield band[:, : min(done, height - top), :width].argmax(0).to(torch.uint8)

    def _band(self, read: Read, compute: Compute, top: int, side: int, width: int, batch_size: int) -> Tensor:
        """Probabilities `(classes, side, width)` of the tiles beside each other."""
        shared, ramp = self.tiling.overlap, self.tiling.ramp()
        spans, band = self.tiling.spans(width), torch.empty(0)
        batch_size = min(batch_size, max(1, PIXELS // (side * spans[0][1])))
        for first in range(0, len(spans), batch_size):
            chosen = spans[first : first + batch_size]
            tiles = [read(top, left, side, length) for left, length in chosen]
            for place, shares in zip(chosen, self._computed(compute, tiles), strict=True):
                left, length = place
                if not len(band):
                    band = shares.new_empty(len(shares), side, spans[-1][0] + spans[-1][1])
                if left:
                    both = band[:, :, left : left + shared], shares[:, :, :shared]
                    shares[:, :, :shared] = self._blended(*both, ramp)
                band[:, :, left : left + length] = shares
        return band

    def _computed(self, compute: Compute, tiles: list[Tensor]) -> Iterator[Tensor]:
        """Probabilities of tiles, of which the last may be narrower."""
        alike = [tile for tile in tiles if tile.shape == tiles[0].shape]
        yield from compute(torch.stack(alike)).clone()
        if len(alike) < len(tiles):
            yield from compute(tiles[-1][None]).clone()

    def _blended(self, before: Tensor, after: Tensor, ramp: Tensor) -> Tensor:
        """The weighted mean of what two tiles say of the same pixels."""
        both = ((ramp > 0) & (ramp < 1)).expand(before.shape[1:]).to(before.device)
        if both.any():
            self.difference = max(self.difference, float((before - after).abs()[:, both].max()))
        return torch.lerp(before, after, ramp.to(before))
