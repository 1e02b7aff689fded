"""`lightning-cnn predict`: writes what a model says as a CSV, and prints its beginning."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lightning_cnn.cli.parser import parser_for, source_of
from lightning_cnn.datamodules.returns.file_options import FileOptions
from lightning_cnn.plain_text import csv_text, escaped
from lightning_cnn.resume.files import check_writable, make_folder, replace_text

SHOWN = 10
DONE = {"number": "read", "objects": "searched"}  # by the second column
HINT = "choose another place with --output"


def main(verb: str, argv: list[str]) -> int:
    """Writes one row a file, or a stock. Returns the exit code."""
    parser = parser_for(verb, "engine/predict")
    usual = "the CSV to write (default: predictions.csv, of stocks ranking.csv)"
    parser.add_argument("--output", metavar="PATH", help=usual)
    of_file = [field.name for field in fields(FileOptions) if field.name != "returns"]
    parser.add_fields("MonthlyReturns", "datamodules", [f"data.{name}" for name in of_file])
    options = parser.parse_args(argv)
    is_ranking = options.prices is not None or options.returns is not None
    given = {name: getattr(options, f"data.{name}") for name in of_file}
    said = {name: value for name, value in given.items() if value is not None}
    has_weights = options.architecture or options.weights
    if is_ranking:
        source = None if has_weights else options.ckpt_path
    else:
        source = source_of(options) if options.images or options.ckpt_path or has_weights else None

    path = Path(options.output or ("ranking.csv" if is_ranking else "predictions.csv"))
    check_writable(path, HINT)

    from lightning_cnn.engine.predict import predict

    frame = predict(source, data=said, **parser.arguments(options))
    # a network may have been trained to predict numbers with these names
    has_chances = [*frame.columns[2:3]] in (["probability"], ["score"]) and frame.dtypes.iloc[1].kind != "f"
    form = "{:.6f}" if has_chances else "{:.6g}"
    cells = frame.itertuples(index=False)
    rows = [[form.format(cell) if isinstance(cell, float) else cell for cell in row] for row in cells]
    make_folder(path.parent, HINT)
    text = csv_text([frame.columns, *rows])
    # a file name may be no text: its bytes are written as \udc80 to \udcff
    replace_text(path, text.encode(errors="backslashreplace").decode(), HINT)
    folder = frame.attrs.get("folder")
    for row in rows[:SHOWN]:
        if folder is not None:
            print(f"{escaped(row[0])}  {_largest(frame.columns[3:], row[3:])}")
        elif is_ranking:
            print("  ".join(escaped(str(cell)) for cell in row))
        elif has_chances:
            print(f"{escaped(row[0])}  {escaped(row[1]) or 'nothing'}  {float(row[2]):.1%}")
        else:
            numbers = zip(frame.columns[1:], row[1:], strict=True)
            print("  ".join([escaped(row[0]), *(f"{name} {number}" for name, number in numbers)]))
    if len(rows) > SHOWN:
        print("...")
    skipped = frame.attrs.get("skipped", ())
    for _, reason in skipped:
        print(f"skipped: {escaped(reason)}", file=sys.stderr)
    end = f", {len(skipped)} skipped" if skipped else ""
    if is_ranking:
        print(f"{len(rows)} stocks ranked for {frame.attrs['month']}, written to {path}")
    elif folder is not None:
        if "difference" in frame.attrs:
            print(f"largest difference of probabilities where tiles overlap: {frame.attrs['difference']:.2g}")
        print(f"{len(rows)} files segmented{end}, masks written to {escaped(folder)}, shares to {path}")
    else:
        done = DONE.get(frame.columns[1], "classified" if has_chances else "predicted")
        print(f"{len(rows)} files {done}{end}, written to {path}")
    return 0


def _largest(columns: Sequence[str], shares: Sequence[str]) -> str:
    """The two largest classes of a mask with their shares."""
    pairs = sorted(zip(columns, map(float, shares), strict=True), key=lambda pair: -pair[1])[:2]
    return "  ".join(f"{escaped(name.removeprefix('share_'))} {share:.1%}" for name, share in pairs)
