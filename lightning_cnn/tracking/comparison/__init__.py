"""The table of `compare`: a row for each run, and only the settings in which the runs differ."""

import fnmatch
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Literal

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.evaluation.directions import Direction, agreed
from lightning_cnn.notes import say
from lightning_cnn.tracking.cache import remembered
from lightning_cnn.tracking.record import CONFIG, METRICS, RECORD
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.settings import Value, matters, settings_of

MAIN_METRICS = ("test/acc", "val/acc", "test/auc", "val/auc", "test/ic", "val/ic", "test/loss", "val/loss")
FALLBACK_METRICS = 4  # so many of runs that logged none of the main ones
LONGEST_NUMBER = 9  # characters of a setting; longer ones are rounded


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: Its header, and what `sort` takes.
        kind: A fact about the run, the value by which its best checkpoint was chosen, a metric of that checkpoint, a
            metric of the last epoch, or a setting.
        better: Which way a metric is better, by all runs that have it; None where they don't say it, or don't agree.
    """

    name: str
    kind: Literal["fact", "best", "metric", "last", "setting"]
    better: Direction | None = field(default=None, compare=False)

    @property
    def descending(self) -> bool:
        """Whether the best, or the most, comes first."""
        return self.better == "max" or self == EPOCHS


RUN = Column("run", "fact")
STATUS = Column("status", "fact")
START = Column("start", "fact")
EPOCHS = Column("epochs", "fact")
DURATION = Column("duration", "fact")
PARAMETERS = Column("parameters", "fact")
BEST_EPOCH = Column("best epoch", "best")


@dataclass
class Row:
    """A run and its cells. All rows of a table have the same cells; an empty one is None."""

    run: RunFolder
    cells: dict[Column, Value]


def build(
    runs: Sequence[RunFolder], metrics: Sequence[str] | None = None, last: bool = False
) -> tuple[list[Column], list[Row]]:
    """The columns and rows of some runs.

    Args:
        runs: The runs, in the order of the rows.
        metrics: Which metrics to show, by name or pattern; None chooses the main ones that there are.
        last: Whether to show the same metrics of the last epoch, too.

    Raises:
        UserError: If no run has such a metric.
    """
    best = [
        Column(f"best {name}", "best", better(name, [run for run in runs if run.record.best.get("metric") == name]))
        for name in _unique(run.record.best.get("metric") for run in runs)
    ]
    shown = [_metric(name, runs) for name in _choose_metrics(runs, metrics)]
    lasting = [column for column in shown if last and any(column.name in run.record.last for run in runs)]
    settings = _differing(_settings(runs))
    rows = []
    for i, run in enumerate(runs):
        record = run.record
        if run.status == "damaged":
            say(str(record.error), is_warning=True)
        cells: dict[Column, Value] = {RUN: run.label, STATUS: run.status, EPOCHS: record.epochs}
        cells |= {DURATION: seconds(run), PARAMETERS: record.parameters}
        of_best = {f"best {record.best.get('metric')}": record.best.get("value")}
        cells |= {column: of_best.get(column.name) for column in best}
        cells |= {BEST_EPOCH: record.best.get("epoch")} if best else {}
        cells |= {column: record.metrics.get(column.name) for column in shown}
        cells |= {Column(f"last {at.name}", "last", at.better): record.last.get(at.name) for at in lasting}
        cells |= {Column(name, "setting"): values[i] for name, values in settings.items()}
        rows.append(Row(run, cells))
    return list(rows[0].cells), rows


def sort(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows, best first; those without the value come last. Of what has no better value the least comes first.

    Args:
        rows: The rows.
        name: A metric, the name of a column, `start`, or `best` for the best value of each run.

    Raises:
        UserError: If there is neither such a metric nor such a column.
    """
    metrics = _unique(metric for row in rows for metric in row.run.record.metrics)
    columns = {metric: _metric(metric, [row.run for row in rows]) for metric in metrics} | {START.name: START}
    columns |= {column.name: column for column in rows[0].cells}
    best = [column for column in columns.values() if column.kind == "best" and column != BEST_EPOCH]
    if best:
        columns["best"] = max(best, key=lambda column: sum(row.cells[column] is not None for row in rows))
    if name not in columns:
        hint = did_you_mean(name, columns) or f"; choose one of {', '.join(columns)}"
        raise UserError(f"can't sort by {name!r}{hint}")
    column = columns[name]
    if column.kind in ("best", "metric") and column.better is None and column != BEST_EPOCH:
        say(f"{column.name}: unknown whether lower or higher is better; sorting in ascending order", is_warning=True)

    def value(row: Row) -> Value:
        record = row.run.record
        return record.start if column == START else row.cells.get(column, record.metrics.get(name))

    filled = [row for row in rows if not missing(value(row))]
    empty = [row for row in rows if missing(value(row))]
    return sorted(filled, key=lambda row: order(value(row)), reverse=column.descending) + empty


def better(metric: str, runs: Sequence[RunFolder]) -> Direction | None:
    """Which way a metric is better, by runs that have it; None where they don't say it, or don't agree."""
    return agreed(metric, [run.record.better for run in runs])


def missing(value: Value) -> bool:
    """Whether a cell is empty or not a number."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def order(value: Value) -> tuple[int, float, str]:
    """Sort key of a value of any type: numbers before texts."""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def short(value: float) -> str:
    """A metric with four decimals, or three digits where these would say nothing or too much."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"


def shown(column: Column, value: Value) -> str:
    """A cell for people; `-` where it is empty."""
    if value is None or value == "":
        return "-"
    if column == DURATION and isinstance(value, int | float):
        return _duration(value)
    if column == PARAMETERS and isinstance(value, int | float):
        return _thousands(value)
    if isinstance(value, bool):
        return str(value).lower()  # as one types it in YAML
    if column.kind in ("best", "metric", "last") and isinstance(value, float):
        return short(value)
    if isinstance(value, float) and len(str(value)) > LONGEST_NUMBER:  # sampled by a sweep
        return f"{value:.5g}"
    return str(value)


def seconds(run: RunFolder) -> float | None:
    """How long a run took; of an interrupted one, which has no end, until it last wrote something."""
    record = run.record
    if run.status == "damaged":
        return None
    try:
        if record.end or run.status == "running":
            return record.seconds
        files = [run.folder / name for name in (RECORD, METRICS)]
        written = max(path.stat().st_mtime for path in files if path.exists())
        return max(0.0, written - datetime.fromisoformat(record.start).timestamp() - record.paused)
    except (ValueError, TypeError):  # no start in the record, or one without its time zone
        return None


def _metric(name: str, runs: Sequence[RunFolder]) -> Column:
    return Column(name, "metric", better(name, [run for run in runs if name in run.record.metrics]))


def _choose_metrics(runs: Sequence[RunFolder], wanted: Sequence[str] | None) -> list[str]:
    known = _unique(metric for run in runs for metric in run.record.metrics)
    if wanted is None:
        return [name for name in MAIN_METRICS if name in known] or known[:FALLBACK_METRICS]
    chosen: list[str] = []
    for name in wanted:
        matching = fnmatch.filter(known, name)
        if not matching:
            hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known)) or 'none yet'}"
            raise UserError(f"no metric {name!r} in these runs{hint}")
        chosen += matching
    return _unique(chosen)


def _settings(runs: Sequence[RunFolder]) -> list[dict[str, Value] | None]:
    """The settings of each run; None where they are not known."""

    def read(folder: Path) -> tuple[dict[str, Value] | None, bool]:
        settings = settings_of(folder)
        return settings, settings is not None

    found: list[dict[str, Value] | None] = remembered("settings", [run.folder for run in runs], [CONFIG], read)
    for run, settings in zip(runs, found, strict=True):
        if settings is None and os.path.exists(run.folder / CONFIG) and run.status != "damaged":
            say(f"skipped settings: {run.folder / CONFIG} can't be read", is_warning=True)
    return found


def _differing(settings: Sequence[dict[str, Value] | None]) -> dict[str, list[Value]]:
    """For each setting that matters and is not the same everywhere: its value in each run."""
    known = [flat for flat in settings if flat is not None]
    same = reduce(lambda shared, flat: shared & flat.items(), known, known[0].items() if known else set())
    alike = {name for name, _ in same}
    names = [name for name in dict.fromkeys(chain.from_iterable(known)) if name not in alike]
    return {
        name: [flat.get(name) if flat is not None else None for flat in settings]
        for name in names
        if len({order(flat.get(name)) for flat in known}) > 1 and matters(name)
    }


def _unique(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))


def _duration(value: float) -> str:
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _thousands(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value)
