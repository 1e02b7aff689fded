"""Reads the curves of a run back from its `metrics.csv`. Imports neither torch nor Lightning."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from lightning_cnn.regular_files import read_regular

Points = list[tuple[float, float]]


def read_history(path: Path, metrics: Sequence[str]) -> dict[str, Points]:
    """The logged values of some metrics, each with its epoch.

    Args:
        path: A `metrics.csv`: columns `epoch`, `step` and the metrics, with blank cells.
        metrics: Names of the metrics.

    Returns:
        For each metric that was logged, its finite points (epoch, value) in the order of the file; nothing where
        there is no such file.
    """
    curves: dict[str, Points] = {}
    with suppress(OSError):
        for row in read_rows(path):
            for name in metrics:
                x, y = _number(row.get("epoch")), _number(row.get(name))
                if x is not None and y is not None:
                    curves.setdefault(name, []).append((x, y))
    return curves


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a `metrics.csv` without their blank cells, up to the first that is damaged.

    A last line without an end is none: the process was killed when it wrote it.

    Args:
        path: The file.

    Raises:
        OSError: If it can't be read.
    """
    text = read_regular(path, errors="replace")
    with suppress(csv.Error):
        for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
            yield {name: value for name, value in row.items() if isinstance(name, str) and value}


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
