"""`predict`: what a model says of image files and of their pixels, or of the stocks of a file of prices or returns."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor

from lightning_cnn.config.checkpoint import class_and_arguments, read_checkpoint
from lightning_cnn.config.trust import class_named
from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.photo import Photo
from lightning_cnn.datamodules.returns.file_options import FileOptions
from lightning_cnn.engine.found_objects import check_detector, draw_photos, write_coco
from lightning_cnn.engine.loading import load, made, model_in
from lightning_cnn.engine.predict_masks import predict_masks
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.source import Source, Weights, checkpoint_of
from lightning_cnn.engine.tiles import Tiling
from lightning_cnn.engine.trainer import SILENT, make_trainer
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError, check, did_you_mean
from lightning_cnn.modules import Detector
from lightning_cnn.resume.checkpoint_file import data_state
from lightning_cnn.resume.files import check_writable
from lightning_cnn.tracking.progress import ProgressBar
from lightning_cnn.user_code import find_user_code

if TYPE_CHECKING:
    from pandas import DataFrame

    from lightning_cnn.datamodules import MonthlyReturns


def predict(
    source: Source | None,
    *,
    images: Sequence[Photo] | Photo = (),
    prices: str | Path | None = None,
    returns: str | Path | None = None,
    month: str | None = None,
    data: Any = None,
    top_k: int = 3,
    masks: str | Path | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    draw: str | Path | None = None,
    coco: str | Path | None = None,
    batch_size: int = 128,
    skip_corrupt: bool = False,
    accelerator: str = "auto",
    trust: Sequence[str] = (),
) -> "DataFrame":
    """Predicts the classes, numbers, objects or masks of image files, or ranks stocks.

    Images are preprocessed, and prices are clipped and scaled, exactly as in training. The ranking is for the month
    after the last prices. Masks are written to a folder: of each image the class of each pixel, and an overlay.

    Args:
        source: A run, its folder, the path of a checkpoint, or `Weights`.
        images: Image files and folders, searched recursively; in Python also images in memory: Pillow images, arrays
            `(h, w)` or `(h, w, 3)`, or tensors `(3, h, w)`, as uint8 or as floats from 0 to 1; one, a list, or an array
            of several.
        prices: Price file, for a checkpoint trained on monthly returns, whether its file had prices or returns.
        returns: Instead of prices: file of daily or monthly returns.
        month: Month to rank for, such as 2018-01, with prices or returns (default: the month after the last complete
            one).
        data: How to read this file where it is not recognized: a dict of options of `MonthlyReturns`, such as
            `{"date_format": "%d/%m/%Y"}`. Default as the file of the training, if both have prices or both returns.
        top_k: Number of most probable classes to return, for a classifier.
        masks: Folder of the masks and overlays, for a segmentation (default: masks).
        tile: Side of the tiles in pixels that large scenes are divided into, for a segmentation (default: each image is
            predicted as a whole).
        overlap: Pixels that neighboring tiles share, at most half a tile (default: 64).
        draw: Folder for the images with the boxes that a detector has found, as PNG.
        coco: JSON file for these boxes, in the format of COCO.
        batch_size: Images or stocks per batch.
        skip_corrupt: Skip images that can't be decoded, which have no row, instead of ending with an error.
        accelerator: Hardware to compute on: auto, cpu, gpu, ...
        trust: Modules that a checkpoint from outside your runs directories may import, which runs their code.

    Returns:
        A row per image with `file` (`image 0`, ... for images in memory), then `class` and `probability` (and
        `class_2`, ...), or the columns of the task's `prediction_table`. For a segmentation `file`, `mask`, `overlay`
        and `share_<class>`, and in `attrs`, with tiles, their largest `difference` where they overlap. The `skipped`
        images, each with the reason, are in `attrs`, too. For prices or returns a row per stock, best first, with
        `rank`, `ticker` and `prediction`, and the month in `attrs["month"]`.

    Raises:
        UserError: If the model can't be had, or there are no such images or prices.
    """
    has_images = images is not None and not (isinstance(images, Sequence) and len(images) == 0)
    of_stocks = {name: file for name, file in (("prices", prices), ("returns", returns)) if file is not None}
    if has_images + len(of_stocks) != 1:
        raise UserError(
            "predict what? Add `images` FILE_OR_FOLDER, or with a `ckpt_path` `prices` FILE or `returns` FILE, and "
            "only one of them"
        )
    given = {"month": month, "draw": draw, "coco": coco, "masks": masks, "tile": tile}
    given["skip_corrupt"] = skip_corrupt or None
    for name in [name for name, value in given.items() if value is not None]:
        if of_stocks and name != "month":
            raise UserError(f"`{name}` requires `images`")
        if has_images and name == "month":
            raise UserError("`month` requires `prices` or `returns`")
    if data and has_images:
        raise UserError(f"`data.{next(iter(data))}` requires `prices` or `returns`")
    check("top_k", top_k, least=1)
    tiling = Tiling.of(tile, overlap)
    source = None if source is None else checkpoint_of(source)
    if source is None or (of_stocks and isinstance(source, Weights)):
        what = f"`{next(iter(of_stocks))}` needs" if of_stocks else "which model? It needs"
        raise UserError(f"{what} `ckpt_path` runs/EXPERIMENT/RUN/checkpoints/best.ckpt, and nothing else")
    be_quiet()
    shown = {"enable_progress_bar": True, "callbacks": [ProgressBar()]}
    trainer = make_trainer(**SILENT | shown, accelerator=accelerator, devices=1)
    if of_stocks and not isinstance(source, Weights):
        find_user_code(*trust)
        return _ranking(read_checkpoint(source), source, of_stocks, data or {}, month, batch_size, trainer)
    model, preprocessing = load(source, trust)
    check_detector(model, draw=draw, coco=coco)
    if draw is not None:
        check_writable(Path(draw) / "image.png", "choose another `draw`")
    if coco is not None:
        check_writable(Path(coco), "choose another `coco`")
    if getattr(model, "gives_masks", False):
        device = trainer.strategy.root_device
        with _naming_the_option(skip_corrupt):
            return predict_masks(model, preprocessing, images, masks, tiling, batch_size, device, skip_corrupt)
    for name in ("masks", "tile"):
        if given[name] is not None:
            raise UserError(f"`{name}` is for a segmentation, not {type(model).__name__}: remove it")
    files = ImageFiles(images, preprocessing, batch_size, skip_corrupt, None if draw is None else Path(draw))
    with _naming_the_option(skip_corrupt), user_errors():
        batches: Any = trainer.predict(model, files)
    if hasattr(model, "prediction_table"):
        header, answers = model.prediction_table(batches, files)  # type: ignore[operator]
    else:
        header, answers = _class_table(torch.cat(batches), preprocessing.class_names, top_k)
    if isinstance(model, Detector):
        if draw is not None:
            draw_photos(Path(draw), model, batches, files)
        if coco is not None:
            write_coco(Path(coco), model, batches, files)
    from pandas import DataFrame, Series

    frame = DataFrame(answers, columns=header)
    frame.insert(0, "file", Series(files.paths, dtype=object))  # a file name may be no text
    frame.attrs["skipped"] = files.skipped
    return frame


@contextmanager
def _naming_the_option(skip_corrupt: bool) -> Iterator[None]:
    """Ends the message about an image that can't be decoded with the option that skips it."""
    try:
        yield
    except UserError as error:
        if skip_corrupt or not str(error).startswith("can't decode the image"):
            raise
        raise UserError(f"{error}, or skip such images with `skip_corrupt`") from None


def _class_table(probabilities: Tensor, names: Sequence[str], top_k: int) -> tuple[list[str], list[list[Any]]]:
    """The most probable classes, for modules that give probabilities `(n, classes)`.

    Returns:
        Names of the columns, and a row for each image.
    """
    if probabilities.ndim != 2 or (names and len(names) != probabilities.shape[1]):
        given = "x".join(map(str, probabilities.shape[1:])) or "one"
        raise UserError(
            f"the checkpoint names {len(names)} classes, but its model has {given} outputs: use another one"
        )
    names = names or tuple(map(str, range(probabilities.shape[1])))
    chances, classes = probabilities.topk(min(top_k, len(names)))
    columns: dict[str, list[Any]] = {}
    for place, (values, found) in enumerate(zip(chances.T.tolist(), classes.T.tolist(), strict=True), start=1):
        end = "" if place == 1 else f"_{place}"
        columns |= {f"class{end}": [names[number] for number in found], f"probability{end}": values}
    return [*columns], [[*row] for row in zip(*columns.values(), strict=True)]


def _ranking(
    checkpoint: dict[str, Any],
    path: Path,
    file: Mapping[str, str | Path],
    options: Mapping[str, Any],
    month: str | None,
    batch_size: int,
    trainer: Trainer,
) -> "DataFrame":
    """The stocks of a file of prices or returns, the best first."""
    scaling = data_state(checkpoint, "scaling")
    if scaling is None:
        raise UserError(f"{path} was not trained on monthly returns: use `images`, or another checkpoint")
    model = model_in(checkpoint)
    try:
        with user_errors():
            data = _data(checkpoint, file, options, batch_size)
            data.load_state_dict({"scaling": scaling})
            _, tickers, of = data.latest_windows(month)
            batches: Any = trainer.predict(model, data)
    except UserError as error:  # what the fields are called here
        message = str(error)
        for name in ("month", "prices", "returns"):
            message = message.replace(f"`data.{name}`", f"`{name}`")
        raise UserError(message) from None
    left_out = _arguments(checkpoint)[1].get("leave_out") or []
    found = zip(torch.cat(batches).tolist(), tickers, strict=True)
    ranked = sorted((pair for pair in found if pair[1] not in left_out), key=lambda pair: (-pair[0], pair[1]))
    rows = [(rank, ticker, value) for rank, (value, ticker) in enumerate(ranked, start=1)]
    from pandas import DataFrame

    frame = DataFrame(rows, columns=["rank", "ticker", "prediction"])
    frame.attrs["month"] = str(of)
    return frame


def _data(
    checkpoint: dict[str, Any], file: Mapping[str, str | Path], options: Mapping[str, Any], batch_size: int
) -> "MonthlyReturns":
    """The data of the training, with another file; `MonthlyReturns` where the training drew its own.

    Whatever the recipe, a stock without a price in the last month, or with daily prices in its last week, is not
    ranked: nobody can buy it.
    """
    from lightning_cnn.datamodules import MonthlyReturns

    (name,) = file
    of_file = [field.name for field in fields(FileOptions) if field.name != "returns"]
    if unknown := [option for option in options if option not in of_file]:
        hint = did_you_mean(unknown[0], of_file) or f"; there are {', '.join(of_file)}"
        raise UserError(f"`data.{unknown[0]}`: not an option of a file{hint}")
    class_path, arguments = _arguments(checkpoint)
    if name == "returns" and arguments.get("picture"):
        raise UserError("the checkpoint was trained on pictures of daily prices: use `prices`")
    kind = class_named(class_path, LightningDataModule) if class_path else MonthlyReturns
    if name not in inspect.signature(kind).parameters:
        kind = MonthlyReturns
    known = inspect.signature(kind).parameters
    # what was said about the file of the training holds for one like it, but its last month is another
    forgotten = ["last_month"] if arguments.get(name) is not None else of_file
    arguments = {option: value for option, value in arguments.items() if option in known and option not in forgotten}
    arguments |= {option: None for option in ("prices", "returns") if option in known}
    arguments |= {name: str(file[name]), **options}
    data: MonthlyReturns = made(kind, arguments | {"batch_size": batch_size, "fill_forward": False, "leave_out": None})
    return data


def _arguments(checkpoint: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return class_and_arguments(checkpoint, "data") or ("", {})
