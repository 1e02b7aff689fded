"""`predict`: what a checkpoint or weights say of image files, or of the stocks of a price file, as a CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_cnn.callbacks import ProgressBar
from lightning_cnn.cli import parsers
from lightning_cnn.commands.rank_stocks import rank_stocks
from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.engine.model_source import load_source
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.trainer import make_trainer
from lightning_cnn.engine.wiring import mendable
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import as_cell, escaped
from lightning_cnn.resume.files import make_folder, replace_text


def main(verb: str, argv: list[str]) -> int:
    """Writes one row a file, or a stock. Returns the exit code."""
    options = parsers.predict(verb).parse_args(argv)
    if (options.images is None) == (options.prices is None):
        raise UserError("what is to be predicted? Either --images FILE_OR_FOLDER, or --prices FILE with a --ckpt_path")
    if options.month is not None and options.prices is None:
        raise UserError("--month goes with --prices")
    be_quiet()
    trainer = make_trainer(
        accelerator=options.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[ProgressBar()],
    )
    if options.prices is not None:
        output = Path(options.output or "ranking.csv")
        _write(output, *rank_stocks(options, trainer))
        print(f", written to {output}")
        return 0
    output = Path(options.output or "predictions.csv")
    model, preprocessing = load_source(options)
    data = ImageFiles(options.images, preprocessing, options.batch_size)
    with mendable():
        batches: Any = trainer.predict(model, data)
    names = preprocessing.class_names
    if hasattr(model, "prediction_table"):
        header, answers = model.prediction_table(batches, data.sizes())  # type: ignore[operator]
    else:
        header, answers = _class_table(torch.cat(batches), names, max(1, options.top_k))
    rows = [[path, *answer] for path, answer in zip(data.paths, answers, strict=True)]
    _write(output, ["file", *header], rows)
    for path, name, share, *_ in rows[:10]:
        print(f"{escaped(path)}  {escaped(name) or 'nothing'}  {float(share):.1%}")
    if len(rows) > 10:
        print("...")
    print(f"{len(rows)} files {'read' if header[0] == 'number' else 'classified'}, written to {output}")
    return 0


def _class_table(probabilities: Tensor, names: Sequence[str], top_k: int) -> tuple[list[str], list[list[str]]]:
    """The most probable classes, for modules that give probabilities `(n, classes)`.

    Returns:
        Names of the columns, and a row for each image.
    """
    names = names or tuple(str(number) for number in range(probabilities.shape[1]))
    count = min(top_k, len(names))
    values, classes = probabilities.topk(count)
    rows = [
        [cell for name, value in zip(found, shares, strict=True) for cell in (names[name], f"{value:.6f}")]
        for found, shares in zip(classes.tolist(), values.tolist(), strict=True)
    ]
    header = ["class", "probability"]
    return header + [
        column for place in range(2, count + 1) for column in (f"class_{place}", f"probability_{place}")
    ], rows


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    hint = "choose another place with --output"
    make_folder(path.parent, hint)
    text = io.StringIO()
    csv.writer(text).writerows([as_cell(cell) for cell in row] for row in [header, *rows])
    # a file name may be no text: its bytes are written as \udc80 to \udcff
    replace_text(path, text.getvalue().encode(errors="backslashreplace").decode(), hint)
