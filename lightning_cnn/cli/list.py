"""`lightning-cnn list`: what there is to choose from, and what was run."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cli.tables import terminal_width, text_table
from lightning_cnn.engine import catalogue
from lightning_cnn.engine.listing import entries
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.resume.files import size_text
from lightning_cnn.tracking.record import default_runs_dir, finite

# kind: its title where everything is listed
KINDS = {
    "architectures": "architectures (--model.architecture NAME)",
    "data": "data (--data NAME)",
    "experiments": "experiments (--config NAME)",
    "runs": "runs",
}
NEWEST = 10  # so many runs where everything is listed
INDENT = "  "


def main(verb: str, argv: list[str]) -> int:
    """Lists one kind of things, or all kinds in short.

    Args:
        verb: `list`.
        argv: The words after it.

    Raises:
        UserError: For an unknown kind, or a pattern that matches nothing.
    """
    parser = VerbParser(verb, "Lists architectures, data sets, experiments or runs.")
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of {', '.join(KINDS)}; default: all of them")
    parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="only names like this, such as 'resnet*' (timm's names too)"
    )
    parser.add_argument("--runs_dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of all runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.kind is not None and args.kind not in KINDS:
        hint = did_you_mean(args.kind, KINDS) or f"; choose one of {', '.join(KINDS)}"
        raise UserError(f"can't list {args.kind!r}{hint}")
    kinds = KINDS if args.kind is None else (args.kind,)
    found = {kind: entries(kind, args.pattern, args.runs_dir) for kind in kinds}
    if args.json:
        print(json.dumps(finite(found), indent=2, allow_nan=False))
    elif args.kind is None:
        print("\n\n".join(_short(kind, listed, args.runs_dir) for kind, listed in found.items()))
    else:
        print(_text(args.kind, found[args.kind], args.runs_dir, terminal_width(), args.pattern))
    return 0


def _cells(kind: str, entry: dict[str, Any]) -> tuple[str, ...]:
    if kind == "runs":
        value, metric = entry["best"].get("value"), entry["best"].get("metric")
        number = f"{value:.4g}" if isinstance(value, float | int) else ""
        best = f"best {metric} {number}".rstrip() if metric else ""
        size = size_text(entry["bytes"])
        about = [entry["error"]] if entry["status"] == "damaged" else [*(f"#{tag}" for tag in entry["tags"])]
        return entry["name"], entry["status"], best, size, " ".join([*about, entry["note"]]).strip()
    if entry.get("from") == "timm":
        return entry["name"], f"timm: {entry['description']}".rstrip(": ")
    return entry["name"], entry["description"]


def _in_folders(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of experiments, each folder with its name above."""
    rows: list[tuple[str, ...]] = []
    for folder, inside in itertools.groupby(found, lambda entry: entry["folder"]):
        rows += [(folder, ""), *((INDENT + entry["name"], entry["description"]) for entry in inside)]
    return rows


def _text(
    kind: str, found: Sequence[dict[str, Any]], runs_dir: Path, width: int | None, pattern: str | None = None
) -> str:
    rows = _in_folders(found) if kind == "experiments" else [_cells(kind, entry) for entry in found]
    lines = [text_table(rows, width=width) if rows else f"no {kind} under {runs_dir}/"]
    if kind == "architectures" and pattern is None:
        count = len(catalogue.timm_networks())
        lines.append(f"and {count} networks of timm: lightning-cnn list architectures 'resnet*'")
    return "\n".join(lines)


def _short(kind: str, found: Sequence[dict[str, Any]], runs_dir: Path) -> str:
    left_out = max(0, len(found) - NEWEST) if kind == "runs" else 0
    width = terminal_width()
    body = _text(kind, found[left_out:], runs_dir, None if width is None else width - len(INDENT))
    if left_out:
        body += f"\nand {left_out} earlier: lightning-cnn list runs"
    return "\n".join([KINDS[kind], *(INDENT + line for line in body.splitlines())])
