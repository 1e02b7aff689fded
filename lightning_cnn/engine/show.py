"""`show`: the training images of an experiment, augmented ones beside their originals, without training."""

from pathlib import Path
from typing import Any

from lightning_cnn.datamodules import ImageDataModule
from lightning_cnn.engine.build import user_errors
from lightning_cnn.engine.figure_file import check_suffix, write_figure
from lightning_cnn.errors import UserError, check


def show(data: Any, *, output: str | Path = "examples.png", count: int | None = None) -> Path:
    """Writes a figure of training images before and after augmentation.

    Args:
        data: An `ImageDataModule`.
        output: The figure to write.
        count: How many images; default 6 with augmentation, else 25.

    Returns:
        The figure's path.

    Raises:
        UserError: If the data have no images, or the figure can't be written.
    """
    if count is not None:
        check("count", count, least=1)
    if not isinstance(data, ImageDataModule):
        raise UserError(f"{type(data).__name__} is not an ImageDataModule: `show()` is for images only")
    path = check_suffix(output)
    with user_errors():
        figure = data.plot(count, augmented=data.augmentation.active)
    return write_figure(figure, path)
