"""The table of `compare` as a data frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.tracking.comparison import BEST_EPOCH, DURATION, RUN, START, Column, Row

if TYPE_CHECKING:
    from pandas import DataFrame

SEED = "seed_everything"
RESULTS = ("best", "metric", "last")  # kinds of columns


def to_frame(columns: Sequence[Column], rows: Sequence[Row]) -> "DataFrame":
    """The runs as rows.

    Args:
        columns: The columns of the table.
        rows: The runs.

    Returns:
        By `run`, `<experiment>/<run id>`: its `start` (UTC), and the columns by name, the duration in `seconds`.
    """
    from pandas import DataFrame, Index, to_datetime

    others = [column for column in columns if column != RUN]
    frame = DataFrame(
        [[row.cells[column] for column in others] for row in rows],
        index=Index([str(row.cells[RUN]) for row in rows], name="run"),
        columns=["seconds" if column == DURATION else column.name for column in others],
    )
    frame.insert(
        0, START.name, to_datetime([row.run.record.start for row in rows], utc=True, format="ISO8601", errors="coerce")
    )
    return frame


def grouped(columns: Sequence[Column], rows: Sequence[Row], by: str, sort: str | None = None) -> "DataFrame":
    """Runs that differ in one setting only, as one row.

    Args:
        columns: The columns of the table.
        rows: The runs.
        by: The setting, such as `seed_everything`, for short `seed`.
        sort: A metric by whose mean the rows are sorted, best first.

    Returns:
        By `experiment`: the other settings that differ, and of each metric its mean by its name, its standard
        deviation (of the sample) as `<metric> std`, and the number of runs that have it as `<metric> n`.

    Raises:
        UserError: If the runs don't differ in this setting, or there is no such metric.
    """
    from pandas import to_numeric

    settings = [column.name for column in columns if column.kind == "setting"]
    name = SEED if by == "seed" else by
    if name not in (*settings, SEED):
        raise UserError(f"`group_by` {by}: expected a setting in which the runs differ{_offered(by, settings)}")
    results = {column.name: column for column in columns if column.kind in RESULTS and column != BEST_EPOCH}
    if sort is not None and sort not in results:
        raise UserError(f"`sort` {sort}: with `group_by` it must be a metric{_offered(sort, results)}")
    if not results:
        raise UserError(f"`group_by` {by}: none of these runs has a metric")
    keys = ["experiment", *(setting for setting in settings if setting != name)]
    frame = to_frame(columns, rows).assign(experiment=[row.run.experiment for row in rows])
    frame[[*results]] = frame[[*results]].apply(to_numeric, errors="coerce")
    found = frame.groupby(keys, sort=False, dropna=False)[[*results]].agg(["mean", "std", "count"])
    ends = {"mean": "", "std": " std", "count": " n"}
    found.columns = [f"{metric}{ends[part]}" for metric, part in found.columns]
    if sort is not None:
        found = found.sort_values(sort, ascending=not results[sort].descending)
    return found.reset_index(keys[1:])


def _offered(given: str, names: Sequence[str] | dict[str, Column]) -> str:
    return did_you_mean(given, names) or (f"; choose one of {', '.join(names)}" if names else "; there is none")
