"""`lightning-cnn compare`: runs side by side, with only the settings in which they differ."""

import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cli.tables import GAP, column_widths, terminal_width, text_table, trim
from lightning_cnn.plain_text import as_cell
from lightning_cnn.resume.files import replace_text
from lightning_cnn.tracking.comparison import DURATION, RUN, START, Column, Row, build, shown, sort
from lightning_cnn.tracking.record import default_runs_dir
from lightning_cnn.tracking.selection import select_runs
from lightning_cnn.tracking.settings import Value

LONGEST_CELL = 40


def main(verb: str, argv: list[str]) -> int:
    """Compares runs.

    Args:
        verb: `compare`.
        argv: The words after it.

    Raises:
        UserError: If there are no such runs or metrics, or the page can't be written.
    """
    args = _parser(verb).parse_args(argv)
    columns, rows = build(select_runs(args.runs, args.runs_dir), args.metrics, last=bool(args.html))
    if args.sort:
        rows = sort(rows, args.sort)
    if args.html:
        _write_page(args.html, columns, rows)
        columns = [column for column in columns if column.kind != "last"]
    if args.json:
        print(json.dumps([_as_json(columns, row) for row in rows], indent=2, allow_nan=False))
    elif args.csv:
        print(_as_csv(columns, rows), end="")
    else:
        print(_as_text(columns, rows, terminal_width()))
    return 0


def _parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, "Runs side by side: results, and only the settings in which they differ.")
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run folder, a run id, EXPERIMENT/ID, an experiment (all its runs), or a glob such as 'digits*/2026*'; "
        "all runs if left out",
    )
    parser.add_argument(
        "--sort",
        metavar="NAME",
        help="sort by a metric, a column or a setting, best first; `best` takes the best value",
    )
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="show these metrics, such as train/loss 'val/*'")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print JSON, with all metrics")
    formats.add_argument("--csv", action="store_true", help="print CSV")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the table and the learning curves")
    parser.add_argument("--runs_dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of all runs")
    return parser


def _write_page(path: Path, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    from lightning_cnn.tracking.comparison.page import page  # only here: most calls have no need of it

    replace_text(path, page(columns, rows), "choose another file for --html")
    print(f"wrote {path}", file=sys.stderr)


def _as_json(columns: Sequence[Column], row: Row) -> dict[str, Any]:
    record = row.run.record
    return {
        "run": row.cells[RUN],
        "experiment": record.name,
        "id": record.id,
        "folder": str(row.run.folder),
        "status": row.run.status,
        "start": record.start,
        "epochs": record.epochs,
        "seconds": row.cells[DURATION],
        "parameters": record.parameters,
        "best": {name: _finite(value) for name, value in record.best.items()},
        "metrics": {name: _finite(value) for name, value in record.metrics.items()},
        "last": {name: _finite(value) for name, value in record.last.items()},
        "settings": {column.name: _finite(row.cells[column]) for column in columns if column.kind == "setting"},
        "wandb": record.wandb.get("url"),
    }


def _finite(value: Value) -> Value:
    """JSON knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_csv(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["seconds" if column == DURATION else column.name for column in columns]
    writer.writerow([START.name, *map(as_cell, names)])
    for row in rows:
        values = [row.cells[column] for column in columns]
        cells = [row.run.record.start, *(str(v).lower() if isinstance(v, bool) else v for v in values)]
        writer.writerow(map(as_cell, cells))
    return out.getvalue()


def _as_text(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> str:
    results = [column for column in columns if column.kind != "setting"]
    settings = [column for column in columns if column.kind == "setting"]
    lines = _cells(columns, rows)
    if width is None or _width(lines) <= width:
        text = _aligned(lines, columns, rows)
    else:  # one below the other; only the first part has the runs' names, then their numbers stand for them
        text = "\n\n".join(_parts(results, rows, width))
        if settings:
            text += "\n\nsettings that differ\n" + "\n\n".join(_parts(settings, rows, width))
    return text if settings or len(rows) == 1 else f"{text}\n\nno setting differs"


def _parts(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[str]:
    """Tables of some columns, as many as the width asks for, each with the number of the run in front."""
    parts: list[list[Column]] = []
    for column in columns:
        if parts and _width(_cells([*parts[-1], column], rows, numbered=True)) <= width:
            parts[-1].append(column)
        else:
            parts.append([column])
    return [_aligned(_cells(part, rows, numbered=True), part, rows, numbered=True) for part in parts]


def _cells(columns: Sequence[Column], rows: Sequence[Row], numbered: bool = False) -> list[list[str]]:
    lines = [[column.name for column in columns]]
    for row in rows:
        texts = [(column, shown(column, row.cells[column])) for column in columns]
        lines.append([text if column == RUN else trim(text, LONGEST_CELL) for column, text in texts])
    if numbered:
        lines = [["#" if i == 0 else str(i), *line] for i, line in enumerate(lines)]
    return lines


def _aligned(lines: list[list[str]], columns: Sequence[Column], rows: Sequence[Row], numbered: bool = False) -> str:
    """The cells as lines, numbers to the right."""
    right = [all(isinstance(row.cells[column], int | float | None) for row in rows) for column in columns]
    return text_table(lines, right=[True] * numbered + right)


def _width(lines: Sequence[Sequence[str]]) -> int:
    widths = column_widths(lines)
    return sum(widths) + len(GAP) * (len(widths) - 1)
