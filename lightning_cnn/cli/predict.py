"""`lightning-cnn predict`: writes what a model says as a CSV, and prints its beginning."""

from pathlib import Path

from lightning_cnn.cli.parser import parser_for, source_of
from lightning_cnn.cli.tables import csv_text
from lightning_cnn.plain_text import escaped
from lightning_cnn.resume.files import make_folder, replace_text

SHOWN = 10
HINT = "choose another place with --output"


def main(verb: str, argv: list[str]) -> int:
    """Writes one row a file, or a stock. Returns the exit code."""
    parser = parser_for(verb, "engine/predict")
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

    frame = predict(source, **parser.arguments(options))
    form = "{:.6g}" if is_ranking else "{:.6f}"
    cells = frame.itertuples(index=False)
    rows = [[form.format(cell) if isinstance(cell, float) else cell for cell in row] for row in cells]
    path = Path(options.output or ("ranking.csv" if is_ranking else "predictions.csv"))
    make_folder(path.parent, HINT)
    text = csv_text([frame.columns, *rows])
    # a file name may be no text: its bytes are written as \udc80 to \udcff
    replace_text(path, text.encode(errors="backslashreplace").decode(), HINT)
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
