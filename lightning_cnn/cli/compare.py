"""`lightning-cnn compare`: runs side by side, with only the settings in which they differ."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnn.cli.parser import Extending, VerbParser
from lightning_cnn.cli.tables import terminal_width, text_table, trim
from lightning_cnn.engine.listing import write_page
from lightning_cnn.plain_text import csv_text
from lightning_cnn.tracking.comparison import DURATION, RUN, START, Column, Row, build, shown, sort
from lightning_cnn.tracking.record import default_runs_dir, finite
from lightning_cnn.tracking.selection import select_runs

LONGEST_CELL = 40
NUMBER = Column("#", "fact")  # of the run, where the table is in parts


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
        write_page(args.html, columns, rows)
        print(f"wrote {args.html}", file=sys.stderr)
        columns = [column for column in columns if column.kind != "last"]
    if args.json:
        print(json.dumps(finite([_as_json(columns, row) for row in rows]), indent=2, allow_nan=False))
    elif args.csv:
        print(_as_csv(columns, rows), end="")
    else:
        print(_as_text(columns, rows, terminal_width()))
    return 0


def _parser(verb: str) -> VerbParser:
    parser = VerbParser(verb, "Compares runs: their metrics, and the settings in which they differ.")
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run folder, a run id, EXPERIMENT/ID, an experiment (all its runs), or a glob such as 'digits*/2026*'; "
        "default: all runs",
    )
    parser.add_argument(
        "--sort",
        metavar="NAME",
        help="sort by a metric, a column or a setting, best first; `best` takes the best value",
    )
    parser.add_argument(
        "--metrics", nargs="+", action=Extending, metavar="NAME", help="show these metrics, such as train/loss 'val/*'"
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print JSON, with all metrics")
    formats.add_argument("--csv", action="store_true", help="print CSV")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the table and the learning curves")
    parser.add_argument("--runs_dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of all runs")
    return parser


def _as_json(columns: Sequence[Column], row: Row) -> dict[str, Any]:
    record = row.run.record
    settings = {column.name: row.cells[column] for column in columns if column.kind == "setting"}
    parts = {"best": record.best, "metrics": record.metrics, "last": record.last, "settings": settings}
    return {
        "run": row.cells[RUN],
        "experiment": row.run.experiment,
        "id": row.run.id,
        "folder": str(row.run.folder),
        "status": row.run.status,
        "start": record.start,
        "epochs": record.epochs,
        "seconds": row.cells[DURATION],
        "parameters": record.parameters,
        "error": record.error,
        **parts,
        "wandb": record.wandb.get("url"),
    }


def _as_csv(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    names = ["seconds" if column == DURATION else column.name for column in columns]
    lines = [[row.run.record.start, *(row.cells[column] for column in columns)] for row in rows]
    cells = [[str(value).lower() if isinstance(value, bool) else value for value in line] for line in lines]
    return csv_text([[START.name, *names], *cells], end="\n")


def _as_text(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> str:
    settings = [column for column in columns if column.kind == "setting"]
    text = _table(columns, rows)
    if width is not None and _width(text) > width:
        # one below the other; only the first part has the runs' names, then their numbers stand for them
        rows = [Row(row.run, {NUMBER: number} | row.cells) for number, row in enumerate(rows, start=1)]
        text = "\n\n".join(_parts([column for column in columns if column.kind != "setting"], rows, width))
        if settings:
            text += "\n\nsettings that differ\n" + "\n\n".join(_parts(settings, rows, width))
    return text if settings or len(rows) == 1 else f"{text}\n\nno setting differs"


def _parts(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[str]:
    """Tables of some columns, as many as the width asks for, each with the number of the run in front."""
    parts: list[list[Column]] = []
    for column in columns:
        if parts and _width(_table([*parts[-1], column], rows)) <= width:
            parts[-1].append(column)
        else:
            parts.append([NUMBER, column])
    return [_table(part, rows) for part in parts]


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The cells as lines, numbers to the right."""
    lines = [[column.name for column in columns]]
    for row in rows:
        texts = [(column, shown(column, row.cells[column])) for column in columns]
        lines.append([text if column == RUN else trim(text, LONGEST_CELL) for column, text in texts])
    right = [all(isinstance(row.cells[column], int | float | None) for row in rows) for column in columns]
    return text_table(lines, right)


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))
