"""The page of `compare --html`: a table of runs that can be sorted, and their learning curves."""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from lightning_cnn.figures import page as pages
from lightning_cnn.figures.svg_curves import curve_chart, style
from lightning_cnn.tracking.comparison import RUN, STATUS, Column, Row, better, missing, order, shown
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.record import METRICS
from lightning_cnn.tracking.settings import Value

CURVES = ("val/loss", "val/acc")
GROUPS = {
    "fact": "",
    "best": "best checkpoint",
    "metric": "metrics of the best checkpoint",
    "last": "last epoch",
    "setting": "settings that differ",
}


def page(columns: Sequence[Column], rows: Sequence[Row], folder: Path) -> str:
    """The whole page.

    Args:
        columns: The columns of the table.
        rows: The runs, in the order in which they are shown first.
        folder: Where the page will lie; its links to the run folders are relative to it.
    """
    columns = _narrowed(columns, rows)
    charts, with_curve = _charts(columns, rows)
    experiments = len({row.run.experiment for row in rows})
    counted = f"{_count(len(rows), 'run')} of {_count(experiments, 'experiment')}"
    more = ", a color to hide its curve; point at a run to see its curve" if with_curve else ""
    classes = _classes(columns, rows)
    return pages.page(
        "comparison.html",
        counted,
        f"Click a header to sort{more}.",
        charts=charts,
        groups=[(GROUPS[kind], len([*group])) for kind, group in groupby(columns, lambda column: column.kind)],
        head=[(column.name, marks, column.descending) for column, marks in zip(columns, classes, strict=True)],
        rows=[
            (style(i) if i in with_curve else None, _links(row.run.folder, folder), cells)
            for i, (row, cells) in enumerate(zip(rows, _cells(columns, rows, classes), strict=True))
        ],
    )


def _narrowed(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns without options of a class, such as a callback, that are equal in all runs that have the class."""
    classes = {column.name: column for column in columns if column.kind == "setting"}

    def differs(column: Column) -> bool:
        owner = classes.get(column.name.rpartition(".")[0])
        if column.kind != "setting" or owner is None:
            return True
        return len({order(row.cells[column]) for row in rows if row.cells[owner] is not None}) > 1

    return [column for column in columns if differs(column)]


def _links(run: Path, folder: Path) -> dict[str, Any]:
    """The address of a run folder, and the names and addresses of its figures."""
    base = quote(Path(os.path.relpath(run, folder)).as_posix())  # also of a colon, which would begin a scheme
    names = sorted(path.stem for path in run.glob("figures/*.png"))
    return {"folder": f"{base}/", "figures": [(name, f"{base}/figures/{quote(name)}.png") for name in names]}


def _charts(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[tuple[str, Markup]], set[int]]:
    """The charts of all metrics that have curves, and the numbers of the runs that are in one."""
    metrics = list(dict.fromkeys([*CURVES, *(column.name for column in columns if column.kind == "metric")]))
    curves = [read_history(row.run.folder / METRICS, metrics) for row in rows]
    charts = []
    with_curve: set[int] = set()
    for metric in metrics:
        lines = [(i, str(rows[i].cells[RUN]), found[metric]) for i, found in enumerate(curves) if metric in found]
        if any(len(points) > 1 for _, _, points in lines) or (lines and metric in CURVES):
            with_curve.update(i for i, _, _ in lines)
            falls = better(metric, [rows[i].run for i, _, _ in lines]) == "min"
            charts.append((metric, curve_chart(metric, lines, falls)))
    return charts, with_curve


def _cells(columns: Sequence[Column], rows: Sequence[Row], classes: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """For each run its cells: what is shown and how, and what the table is sorted by."""
    top = [_top(column, rows) for column in columns]
    for row in rows:
        cells = []
        for column, marks, best in zip(columns, classes, top, strict=True):
            value = row.cells[column]
            is_top = best is not None and value == best
            cells.append(
                {
                    "classes": f"{marks}{' empty' * missing(value)}{' top' * is_top}".strip(),
                    "value": "" if missing(value) else str(value).lower() if isinstance(value, bool) else str(value),
                    "text": shown(column, value),
                    "is_status": column == STATUS,
                    "is_run": column == RUN,
                }
            )
        yield cells


def _top(column: Column, rows: Sequence[Row]) -> Value:
    """The best value of a column of results; None where nothing can be called best."""
    if column.better is None or column.kind == "last" or len(rows) < 2:
        return None
    values = [row.cells[column] for row in rows if not missing(row.cells[column])]
    return (max if column.descending else min)(values, key=order, default=None)


def _classes(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """For each column: whether a group of columns begins with it, and whether it holds numbers."""
    found = []
    for before, column in zip([None, *columns], columns, strict=False):
        begins = before is None or before.kind != column.kind
        numeric = all(isinstance(row.cells[column], int | float | None) for row in rows)
        found.append(" ".join(["first"] * begins + ["number"] * numeric))
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
