"""`lightning-cnn benchmark`: the table of networks, and the charts."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_cnn.cli.parser import parser_for
from lightning_cnn.cli.tables import text_table
from lightning_cnn.notes import say
from lightning_cnn.plain_text import csv_text
from lightning_cnn.resume.files import make_folder, replace_bytes, replace_text
from lightning_cnn.tracking.record import finite

MEANING = """operations: inference of one image, matrix products and convolutions; a multiply-add counts as two
memory: of a training step, {memory}"""
ELSEWHERE = "choose another place with --output"
ON_GPU = "the most that a step allocates"
ON_CPU = "counted: parameters, their gradients, and what a step keeps for its backward pass"


def main(verb: str, argv: list[str]) -> int:
    """Prints the table, and writes it and the charts. Returns the exit code."""
    parser = parser_for(verb, "engine/benchmark")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="where to write")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)

    from lightning_cnn.engine.benchmark import benchmark

    made = not options.output.exists()
    make_folder(options.output, ELSEWHERE)  # before all the work
    try:
        frame = benchmark(**parser.arguments(options))
    except BaseException:
        if made:
            with suppress(OSError):
                options.output.rmdir()
        raise
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    print(json.dumps(finite(rows), indent=2, allow_nan=False) if options.json else _text(rows, options.metric))
    _write(options.output, rows, options.metric)
    return 0


def _text(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """The table, under a line that says how it was measured, over what its columns mean."""
    from lightning_cnn.figures.benchmark import short
    from lightning_cnn.modules.network import input_shape

    first = rows[0]
    with_accuracy = any(row[metric] is not None for row in rows)
    data = next((row["data"] for row in rows if row["data"]), "")
    header = ["architecture", "images", "classes", "parameters", "operations", "inference", "training", "memory"]
    lines = [header + [f"{metric} ({data})"] * with_accuracy]
    for row in rows:
        cells = [
            row["architecture"],
            "x".join(map(str, input_shape(row["architecture"], row["in_channels"], row["image_size"]))),
            str(row["num_classes"]),
            short(row["parameters"]),
            short(row["operations"]),
            _or_dash(row["inference_images_per_s"], "{:,.1f}/s"),
            _or_dash(row["training_images_per_s"], "{:,.1f}/s"),
            _or_dash(row["memory_bytes"] and row["memory_bytes"] / 2**20, "{:,.1f} MiB"),
        ]
        lines.append(cells + [_or_dash(row[metric], "{:.4f}")] * with_accuracy)
    how = [first["device"], f"batches of {first['batch_size']}", f"precision {first['precision']}"]
    how += [word for word in ("channels_last", "compile") if first[word]]
    meaning = MEANING.format(memory=ON_CPU if first["device"].startswith("cpu") else ON_GPU)
    return f"{', '.join(how)}\n\n{text_table(lines, right=[False] + [True] * 8)}\n\n{meaning}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _write(folder: Path, rows: Sequence[dict[str, Any]], metric: str) -> None:
    from lightning_cnn.figures.benchmark import benchmark_figures
    from lightning_cnn.figures.style import encode

    without = [row["architecture"] for row in rows if row[metric] is None]
    if len(without) == len(rows):
        say(f"no run of these networks on such images has {metric}: the chart shows throughput", is_warning=True)
    elif without:
        say(f"not in the charts, because no run has {metric}: {', '.join(without)}", is_warning=True)
    paths = [folder / "table.csv"]
    replace_text(paths[0], csv_text([rows[0], *(row.values() for row in rows)]), ELSEWHERE)
    for name, figure in benchmark_figures(rows, metric).items():
        paths.append(folder / name)
        replace_bytes(paths[-1], encode(figure), ELSEWHERE)
    print(f"wrote {', '.join(map(str, paths))}", file=sys.stderr)
