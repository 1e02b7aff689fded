"""`lightning-cnn explain`: what was explained, and where the figure or the page is."""

from pathlib import Path

from lightning_cnn.cli.parser import parser_for, source_of
from lightning_cnn.cli.tables import text_table
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import escaped
from lightning_cnn.tracking.record import default_runs_dir
from lightning_cnn.tracking.selection import find_run

SHOWN = 10


def main(verb: str, argv: list[str]) -> int:
    """Explains the images, or the test data. Returns the exit code."""
    parser = parser_for(verb, "engine/explain")
    parser.add_argument("--run", metavar="RUN", help="a run, instead of a checkpoint: its best one")
    parser.add_argument("--runs_dir", metavar="DIR", help="folder of all runs (default: $LIGHTNING_CNN_RUNS or runs)")
    options = parser.parse_args(argv)
    if options.run is None and not (options.ckpt_path or options.architecture or options.weights):
        raise UserError("explain what? Add --run RUN, or --ckpt_path FILE and images")
    if options.run is None:
        source = source_of(options)
    elif options.ckpt_path or options.architecture or options.weights:
        raise UserError("--run names its own checkpoint: remove --ckpt_path, --architecture and --weights")
    else:
        source = find_run(Path(options.runs_dir or default_runs_dir()), options.run)

    from lightning_cnn.engine.explain import explain

    found = explain(source, **parser.arguments(options))
    frame = found.frame
    if "column" in frame:
        values = frame.select_dtypes("number").columns
        frame = frame.sort_values(values[0], ascending=False)
    rows = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in frame.values]
    right = [dtype.kind == "f" for dtype in frame.dtypes]
    print(text_table([[*frame.columns], *rows[:SHOWN]], right=right))
    if len(rows) > SHOWN:
        print("...")
    layer = f", layer {found.layer}" if found.layer else ""
    what = "columns" if "column" in frame else "images"
    print(f"{len(rows)} {what}{layer}, written to {escaped(str(found.path))}")
    return 0
