"""`lightning-cnn predict`: writes what a model says as a CSV, and prints its beginning."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning_cnn.cli.parser import add_source, parser_for, source_of, values
from lightning_cnn.plain_text import as_cell, escaped
from lightning_cnn.resume.files import make_folder, replace_text

SHOWN = 10
HINT = "choose another place with --output"


def main(verb: str, argv: list[str]) -> int:
    """Writes one row a file, or a stock. Returns the exit code."""
    parser = parser_for(verb, "engine/predict", skip=("source", "trust"))
    add_source(parser)
    usual = "the CSV to write (default: predictions.csv, of prices ranking.csv)"
    parser.add_argument("--output", metavar="PATH", help=usual)
    options = parser.parse_args(argv)
    is_ranking = options.prices is not None
    has_weights = options.architecture or options.weights
    if is_ranking:
        source = None if has_weights else options.ckpt_path
    else:
        source = source_of(options) if options.images or options.ckpt_path or has_weights else None

    from lightning_cnn.engine.predict import predict

    frame = predict(source, **values(options, "engine/predict", "predict"))
    form = "{:.6g}" if is_ranking else "{:.6f}"
    found = frame.itertuples(index=False)
    rows: list[list[Any]] = [[form.format(cell) if isinstance(cell, float) else cell for cell in row] for row in found]
    path = Path(options.output or ("ranking.csv" if is_ranking else "predictions.csv"))
    make_folder(path.parent, HINT)
    text = io.StringIO()
    csv.writer(text).writerows([as_cell(cell) for cell in row] for row in [frame.columns, *rows])
    # a file name may be no text: its bytes are written as \udc80 to \udcff
    replace_text(path, text.getvalue().encode(errors="backslashreplace").decode(), HINT)
    for row in rows[:SHOWN]:
        if is_ranking:
            print("  ".join(escaped(str(cell)) for cell in row))
        else:
            print(f"{escaped(row[0])}  {escaped(row[1]) or 'nothing'}  {float(row[2]):.1%}")
    if len(rows) > SHOWN:
        print("...")
    if is_ranking:
        print(f"{len(rows)} stocks ranked for {frame.attrs['month']}, written to {path}")
    else:
        print(f"{len(rows)} files {'read' if frame.columns[1] == 'number' else 'classified'}, written to {path}")
    return 0
