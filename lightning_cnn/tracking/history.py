"""Reads the curves of a run back from its `metrics.csv`. Imports neither torch nor Lightning."""

import csv
import io
import math
from collections.abc import Sequence
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
    try:
        for row in csv.DictReader(io.StringIO(read_regular(path, errors="replace"))):
            for name in metrics:
                x, y = _number(row.get("epoch")), _number(row.get(name))
                if x is not None and y is not None:
                    curves.setdefault(name, []).append((x, y))
    except (OSError, csv.Error):
        return {}
    return curves


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
