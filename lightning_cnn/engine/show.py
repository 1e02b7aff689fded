"""`show`: training images of an experiment beside augmented ones, or windows of returns, without training."""

from pathlib import Path
from typing import Any

from lightning_cnn.datamodules import ImageDataModule
from lightning_cnn.datamodules.returns.base import ReturnDataModule
from lightning_cnn.engine.figure_file import check_figure, write_figure
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError, check


def show(data: Any, *, output: str | Path = "examples.png", count: int | None = None) -> Path:
    """Writes a figure of training images before and after augmentation, or of windows of returns.

    Of a price file, its description is printed, and the figure is written only if its path is given.

    Args:
        data: An `ImageDataModule`, or data of returns.
        output: The figure to write.
        count: How many images; default 6 with augmentation, else 25; of windows 12.

    Returns:
        The figure's path.

    Raises:
        UserError: If the data have no images, or the figure can't be written.
    """
    if count is not None:
        check("count", count, least=1)
    if not isinstance(data, ImageDataModule | ReturnDataModule):
        raise UserError(
            f"{type(data).__name__} is neither an ImageDataModule nor one of returns: `show()` is for these only"
        )
    path = check_figure(output)
    with user_errors():
        if isinstance(data, ReturnDataModule):
            figure = data.plot() if count is None else data.plot(count)
        else:
            figure = data.plot(count, augmented=data.augmentation.active)
    return write_figure(figure, path)
