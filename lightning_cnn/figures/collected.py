"""What is kept of the examples of a validation or test, to be drawn at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

IMAGES = "images"
ORDER = "order"  # what the kept examples are chosen by, the highest first
Table = tuple[list[str], list[list[Any]]]  # names of the columns, and the rows
Rows = dict[str, Any]  # columns by name, a tensor or a list with an entry for each example


class All:
    """Keeps what is a tensor of all examples, of all processes together; not their images.

    Args:
        *columns: Names of the columns; all of them without one.
    """

    def __init__(self, *columns: str) -> None:
        self.columns = columns


@dataclass(frozen=True)
class Worst:
    """Keeps the examples with the highest value of a column that this process has seen.

    Attributes:
        count: How many at most.
        by: Name of the column.
        among: Name of a bool column that says which examples count; empty for all.
    """

    count: int
    by: str
    among: str = ""


@dataclass(frozen=True)
class Sample:
    """Keeps a random sample of the examples that this process has seen: the same ones each time.

    Attributes:
        count: How many at most.
    """

    count: int


Keep = All | Worst | Sample


class Columns(Metric):
    """The columns of all batches, of all processes together.

    Args:
        *names: Names of the columns.
    """

    full_state_update = False

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.columns = names
        for name in names:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, *parts: Tensor) -> None:
        """Adds a batch: a part of each column."""
        for name, part in zip(self.columns, parts, strict=True):
            getattr(self, name).append(part)

    def compute(self) -> dict[str, Tensor]:
        """The columns by name; torchmetrics makes a scalar of one with a single value."""
        return {name: dim_zero_cat(getattr(self, name)) for name in self.columns}


class Collected:
    """Collects what is to be kept of the batches of a validation or test.

    Args:
        keep: What is kept, each with a name.

    Attributes:
        kept: For each name the rows, complete once they are gathered.
    """

    def __init__(self, keep: Mapping[str, Keep]) -> None:
        self.keep = keep
        self.kept: dict[str, Rows] = {}
        self._all: dict[str, Columns] = {}
        # the same examples each time, so that runs can be compared
        self._draws = {name: torch.Generator().manual_seed(0) for name in keep}

    def add(self, rows: Rows) -> None:
        """Adds a batch.

        Args:
            rows: What the step returned, and the `images` as the network saw them.
        """
        for name, keep in self.keep.items():
            if isinstance(keep, All):
                tensors = {key: part for key, part in rows.items() if isinstance(part, Tensor) and key != IMAGES}
                columns = {key: tensors[key] for key in keep.columns or tensors}
                self._all.setdefault(name, Columns(*columns)).update(*columns.values())
                continue
            images: Tensor = rows[IMAGES]
            if isinstance(keep, Worst):
                order: Tensor = rows[keep.by]
            else:
                order = torch.rand(len(images), generator=self._draws[name]).to(images.device)
            found = {ORDER: order, **rows}
            if isinstance(keep, Worst) and keep.among:
                found = _taken(found, rows[keep.among].nonzero().flatten())
            if name in self.kept:
                found = {key: _joined(part, found[key]) for key, part in self.kept[name].items()}
            self.kept[name] = _taken(found, found[ORDER].argsort(descending=True, stable=True)[: keep.count])

    def gather(self) -> None:
        """Joins the rows of all processes, where all are kept; each process must call it."""
        for name, columns in self._all.items():
            self.kept[name] = {column: torch.atleast_1d(part) for column, part in columns.compute().items()}


def _taken(rows: Rows, numbers: Tensor) -> Rows:
    chosen = numbers.tolist()
    return {
        key: part[numbers] if isinstance(part, Tensor) else [part[number] for number in chosen]
        for key, part in rows.items()
    }


def _joined(first: Any, second: Any) -> Tensor | Sequence[Any]:
    """The rows of both; a list where these are no tensors, or tensors of different sizes, as whole images may be."""
    alike = isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape[1:] == second.shape[1:]
    return torch.cat([first, second]) if alike else [*first, *second]
