"""`predict` of a segmentation: a mask and an overlay for each image, and the shares of the classes."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import LightningModule
from torch import Tensor
from tqdm import tqdm

from lightning_cnn.datamodules.images.image_files import find_images
from lightning_cnn.datamodules.images.photo import Photo
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.datamodules.images.scenes import GeoScene, Scene, any_size, open_scene
from lightning_cnn.engine.tiles import Classes, Compute, Tiling
from lightning_cnn.errors import StorageError, UserError
from lightning_cnn.figures.segmentation import overlay
from lightning_cnn.options import IGNORE
from lightning_cnn.plain_text import distinct
from lightning_cnn.resume.files import make_folder, storing

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = "masks"
ELSEWHERE = "choose another folder with `masks`"
LONGEST = 2048  # side of an overlay in pixels


def predict_masks(
    model: LightningModule,
    preprocessing: Preprocessing,
    images: Sequence[Photo] | Photo,
    folder: str | Path | None,
    tiling: Tiling,
    batch_size: int,
    device: torch.device,
    skip_corrupt: bool = False,
) -> "DataFrame":
    """Writes `<name>_mask.png` (or `.tif` with the georeference of a GeoTIFF) and `<name>_overlay.png` of each image.

    Nothing is written unless all images can be read.

    Args:
        model: The model, in evaluation mode; it gives a class for each pixel.
        preprocessing: The preparation of its images.
        images: Files, folders and images in memory; what lies in the folder of the masks is no image.
        folder: Where to write; default `masks`.
        tiling: How images are divided.
        batch_size: Tiles to compute at once.
        device: What to compute on.
        skip_corrupt: Whether to skip images that can't be read.

    Returns:
        A row per image with `file`, `mask` and `overlay`, the paths, and `share_<class>`, the share of its pixels; in
        `attrs` the `folder`, the `skipped` images, each with the reason, and, with tiles, the `difference`: the largest
        one of the probabilities of two tiles where both count.

    Raises:
        UserError: If an image can't be read, or a file can't be written.
    """
    from pandas import DataFrame, Series

    target = Path(FOLDER if folder is None else folder)
    found = [(name, photo) for name, photo in find_images(images) if not _is_inside(photo, target)]
    if not found:
        raise UserError(f"all images lie in the folder of the masks, {target}: {ELSEWHERE}")
    names = preprocessing.class_names or tuple(map(str, range(model.hparams["num_classes"])))
    compute = _computing(model.to(device), preprocessing, device)
    classes, counts, files = Classes(tiling), [], []
    done: list[str] = []
    skipped: list[tuple[str, str]] = []
    is_new = not target.exists()
    make_folder(target, ELSEWHERE)
    try:
        with storing(target, ELSEWHERE), tempfile.TemporaryDirectory(dir=target, prefix=".tmp-") as made:
            work = Path(made)
            bar = tqdm(found, desc="Predicting", leave=False, disable=None)
            for (name, photo), stem in zip(bar, _stems(found), strict=True):
                try:
                    with any_size():
                        scene = open_scene(photo, preprocessing.in_channels, preprocessing.background)
                    rows = classes.rows(scene.read, compute, scene.height, scene.width, batch_size)
                    counts.append(_write(scene, rows, work, stem, names))
                except StorageError:
                    raise
                except UserError as error:
                    if not skip_corrupt:
                        raise
                    skipped.append((name, str(error)))
                    continue
                done.append(name)
                files.append([f"{stem}_mask.{'png' if scene.profile is None else 'tif'}", f"{stem}_overlay.png"])
            if not done:
                raise UserError(f"none of the {len(found)} images can be decoded: {skipped[0][1]}")
            for file in (file for pair in files for file in pair):
                (work / file).replace(target / file)
    except BaseException:
        if is_new and not any(target.iterdir()):
            target.rmdir()
        raise
    frame = DataFrame([[str(target / file) for file in pair] for pair in files], columns=["mask", "overlay"])
    frame.insert(0, "file", Series(done, dtype=object))  # a file name may be no text
    for number, name in enumerate(names):
        frame[f"share_{name}"] = [float(count[number] / max(1, count.sum())) for count in counts]
    frame.attrs |= {"folder": str(target), "skipped": skipped} | (
        {"difference": classes.difference} if tiling.tile else {}
    )
    return frame


def _computing(model: LightningModule, preprocessing: Preprocessing, device: torch.device) -> Compute:
    """What computes the probabilities of the classes."""

    @torch.inference_mode()
    def compute(pixels: Tensor) -> Tensor:
        logits: Tensor = model(preprocessing.scale(pixels.to(device).float() / 255))
        return logits.float().softmax(1).cpu()

    return compute


def _write(scene: Scene, rows: Iterator[Tensor], folder: Path, stem: str, names: Sequence[str]) -> NDArray[np.int64]:
    """Writes the mask and the overlay of a scene; returns the number of pixels of each class."""
    step = math.ceil(max(scene.height, scene.width) / LONGEST)
    counts, top, shown = np.zeros(len(names), np.int64), 0, []
    mask = np.memmap(folder / "rows", np.uint8, "w+", shape=(scene.height, scene.width))  # not in memory
    for part in rows:
        classes = mask[top : top + len(part)] = part.numpy()
        known = np.ones(classes.shape, bool)
        if isinstance(scene, GeoScene):
            known = ~scene.missing(top, len(part))
            mask[top : top + len(part)][~known] = IGNORE
        counts += np.bincount(classes[known], minlength=len(names))
        first = -top % step
        if first < len(part):
            pixels = scene.read(top, 0, len(part), scene.width)[:, first::step, ::step]
            colored = overlay(pixels.float() / 255, part[first::step, ::step], names)
            shown.append((255 * colored).round().to(torch.uint8).permute(1, 2, 0).numpy())
        top += len(part)
    Image.fromarray(np.concatenate(shown)).save(folder / f"{stem}_overlay.png")
    if scene.profile is None:
        Image.frombuffer("L", (scene.width, scene.height), mask, "raw", "L", 0, 1).save(folder / f"{stem}_mask.png")
    else:
        _write_geotiff(folder / f"{stem}_mask.tif", mask, scene.profile)
    return counts


def _write_geotiff(path: Path, mask: NDArray[np.uint8], georeference: dict[str, Any]) -> None:
    """Writes classes with a georeference; 255 stands for no data."""
    rasterio: Any = import_module("rasterio")
    height, width = mask.shape
    shape = {"height": height, "width": width, "count": 1, "dtype": "uint8", "nodata": IGNORE}
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", **shape, **georeference) as file:
        for top in range(0, height, 512):
            window = rasterio.windows.Window(0, top, width, min(512, height - top))
            file.write(mask[top : top + 512], 1, window=window)


def _stems(found: Sequence[tuple[str, str | Image.Image]]) -> list[str]:
    """What the names of the files of each image begin with: its own name, numbered where two are alike."""
    return distinct(Path(name).stem if isinstance(photo, str) else name.replace(" ", "_") for name, photo in found)


def _is_inside(photo: str | Image.Image, folder: Path) -> bool:
    return isinstance(photo, str) and Path(photo).resolve().is_relative_to(folder.resolve())
