"""`explain`: what the answers of a checkpoint rest on, for images, for the test images of a run, and for returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch import Tensor

from lightning_cnn.config.checkpoint import class_and_arguments, read_checkpoint
from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import TEST
from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.photo import Photo
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.attribution import STEPS, Explainer, Settings, class_number
from lightning_cnn.engine.explain_returns import LAG_METHODS, lag_attributions
from lightning_cnn.engine.explain_worst import write_worst
from lightning_cnn.engine.figure_file import HINT, check_figure, write_figure
from lightning_cnn.engine.loading import load, load_model
from lightning_cnn.engine.quiet import be_quiet
from lightning_cnn.engine.source import Source, Weights, checkpoint_of
from lightning_cnn.errors import UserError, check, check_choice, require
from lightning_cnn.figures.attribution import column_bars, map_grid
from lightning_cnn.plain_text import escaped
from lightning_cnn.resume.checkpoint_file import data_state
from lightning_cnn.resume.files import check_writable
from lightning_cnn.tracking.record import RECORD
from lightning_cnn.user_code import find_user_code

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT = "gradcam"
SHOWN = 24  # images of a figure
WORST = 25  # images of a page


@dataclass(frozen=True)
class Explanation:
    """What answers rest on.

    Attributes:
        frame: Of images a row for each, with `file`, `class` (predicted), `probability` and `target`, the class that is
            explained; of the worst test images also `label` and `loss`. Of returns a row for each column of a window.
        maps: float32. Of images `(n, height, width)`, in pixels of what the network sees; see `explain` for the units.
            Of returns `(n, channels, columns)`, the integrated gradients of each test window.
        layer: The layer whose maps Grad-CAM weights; empty for other methods.
        path: The file that was written, a figure or a page.
    """

    frame: "DataFrame"
    maps: NDArray[np.float32]
    layer: str
    path: Path


def explain(
    source: Source,
    images: Sequence[Photo] | Photo = (),
    *,
    method: Literal["gradcam", "guided_gradcam", "integrated_gradients", "occlusion", "saliency"] | None = None,
    layer: str | None = None,
    target: str | int | None = None,
    output: str | Path | None = None,
    worst: int | None = None,
    steps: int | None = None,
    window: int | None = None,
    batch_size: int = 32,
    accelerator: Literal["auto", "cpu"] = "auto",
    trust: Sequence[str] = (),
) -> Explanation:
    """Explains answers of a classifier: which pixels speak for a class.

    Without images it explains the test data of the checkpoint: of images it writes a page with the worst, those with
    the largest loss; of monthly returns it measures how much each lag and each dummy matters.

    Maps are those of the network's output for the target class (of capsules, of their lengths). `gradcam` is the sum
    of a layer's maps, each weighted by its mean gradient, where positive, enlarged to the image; of it only the
    proportions mean something. `guided_gradcam` is its product with the gradients of guided backpropagation.
    `integrated_gradients` sum up to the difference of the outputs for the image and for one of zeros, which is the mean
    color of the training images where these are standardized. `occlusion` is how much the output falls when a square
    around the pixel is set to zero. `saliency` is the largest absolute gradient of the pixel's channels.

    Args:
        source: A run, its folder, the path of a checkpoint, or `Weights`.
        images: Image files and folders, searched recursively; in Python also images in memory, as for `predict`.
        method: How to explain (default: gradcam; of returns integrated_gradients and occlusion).
        layer: Layer of gradcam and guided_gradcam (default: the last with maps of at least 4x4).
        target: Class to explain, by its name or number (default: the predicted class of each image).
        output: The figure or page to write (default: explain.png; of test images explain.html, of returns
            explain.png, in the folder of the run).
        worst: Number of test images on the page (default: 25).
        steps: Steps of integrated gradients (default: 50).
        window: Side of the square of occlusion in pixels (default: a seventh of the image).
        batch_size: Images per batch.
        accelerator: What to compute on.
        trust: Modules that a checkpoint from outside your runs directories may import, which runs their code.

    Raises:
        UserError: If the model can't be had or explained, or there are no such images, layer or class.
    """
    require("explain", "`explain()`")
    check("batch_size", batch_size, least=1)
    check_choice("accelerator", accelerator, ("auto", "cpu"))
    for name, count in (("worst", worst), ("steps", steps)):
        if count is not None:
            check(name, count, least=1)
    be_quiet()
    device = torch.device("cuda" if accelerator == "auto" and torch.cuda.is_available() else "cpu")
    find_user_code(*trust)
    found = checkpoint_of(source)
    has_images = images is not None and not (isinstance(images, Sequence) and len(images) == 0)
    if has_images and worst is not None:
        raise UserError("`worst` is for test images: remove it, or the images")
    if isinstance(found, Weights):
        if not has_images:
            raise UserError("explain what? Add images: weights of timm have no test data")
        settings = Settings(method or DEFAULT, layer, steps, window)
        return _images(*load(found), images, settings, target, output, batch_size, device)
    checkpoint = read_checkpoint(found)
    is_of_returns = data_state(checkpoint, "scaling") is not None
    if has_images and is_of_returns:
        raise UserError("the checkpoint was trained on monthly returns: remove the images, to explain its test months")
    if not is_of_returns:
        settings = Settings(method or DEFAULT, layer, steps, window)
    if has_images:
        return _images(*load_model(checkpoint), images, settings, target, output, batch_size, device)
    if class_and_arguments(checkpoint, "data") is None:
        raise UserError("the checkpoint does not record its data: add images to explain")
    config = Config.of(None, TEST, ckpt_path=str(found))
    if not is_of_returns:
        page = _in_run(found, output, "html")
        if page.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"`output` {page}: test images are shown on a page, expected a name that ends in .html")
        check_writable(page, HINT)
        return Explanation(*write_worst(config, settings, target, page, worst or WORST, device))
    for name, value in {"layer": layer, "target": target, "window": window, "worst": worst}.items():
        if value is not None:
            raise UserError(f"`{name}` is for images, but the checkpoint was trained on monthly returns: remove it")
    if method not in (None, *LAG_METHODS):
        raise UserError(f"of returns `method` is {' or '.join(LAG_METHODS)}")
    if steps is not None and method == "occlusion":
        raise UserError("`steps` is for `method` integrated_gradients: remove it")
    methods = LAG_METHODS if method is None else (method,)
    path = check_figure(_in_run(found, output, "png"))
    frame, maps, unit = lag_attributions(config, methods, steps or STEPS, device)
    pairs = zip(frame["channel"], frame["column"], strict=True)
    names = [column if channel in ("", "return") else f"{channel} {column}" for channel, column in pairs]
    figure = column_bars(names, {name: frame[name].to_numpy() for name in methods}, unit)
    return Explanation(frame, maps, "", write_figure(figure, path))


def _images(
    model: LightningModule,
    preprocessing: Preprocessing,
    images: Any,
    settings: Settings,
    target: str | int | None,
    output: str | Path | None,
    batch_size: int,
    device: torch.device,
) -> Explanation:
    """The maps of images, and a figure of the first of them."""
    from pandas import DataFrame, Series

    path = check_figure(output or "explain.png")
    explainer = Explainer(model, settings, device)
    names = tuple(explainer.model.names_of(preprocessing))
    number = None if target is None else class_number(target, names)
    data = ImageFiles(images, preprocessing, batch_size)
    parts: list[Tensor] = []
    shown: list[Tensor] = []
    rows: list[tuple[str, float, str]] = []
    for batch in data.predict_dataloader():
        inputs, _ = data.on_after_batch_transfer(batch, 0)
        chances, classes = explainer.probabilities(inputs).max(1)
        targets = classes if number is None else torch.full_like(classes, number)
        rows += [
            (names[guess], chance, names[wanted])
            for guess, chance, wanted in zip(classes.tolist(), chances.tolist(), targets.tolist(), strict=True)
        ]
        parts.append(explainer.maps(inputs, targets))
        shown += [*preprocessing.unscale(inputs[: max(0, SHOWN - len(shown))])]
    maps, frame = torch.cat(parts), DataFrame(rows, columns=["class", "probability", "target"])
    frame.insert(0, "file", Series(data.paths, dtype=object))  # a file name may be no text
    titles = [
        (escaped(Path(path).name)[-18:], f"for {wanted}" if wanted != guess else f"{guess}, {chance:.1%}")
        for path, (guess, chance, wanted) in zip(data.paths[: len(shown)], rows, strict=False)
    ]
    figure = map_grid(torch.stack(shown), maps[: len(shown)], titles)
    return Explanation(frame, maps.numpy(), explainer.layer, write_figure(figure, path))


def _in_run(checkpoint: Path, output: str | Path | None, suffix: str) -> Path:
    """The file to write: by default in the folder of the checkpoint's run, else in the working directory."""
    folder = checkpoint.parent.parent
    return Path(output or (folder if (folder / RECORD).is_file() else Path()) / f"explain.{suffix}")
