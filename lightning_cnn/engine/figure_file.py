"""A figure as a file that a user has named."""

from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from lightning_cnn.errors import UserError
from lightning_cnn.figures.style import encode
from lightning_cnn.resume.files import check_writable, make_folder, replace_bytes

NO_FIGURES = {"pgf", "raw", "rgba"}  # formats of matplotlib that no viewer opens
HINT = "choose another place with `output`"


def check_figure(output: str | Path) -> Path:
    """The path of a figure.

    Raises:
        UserError: If its suffix names no format of figures, or it can't be written.
    """
    path = Path(output)
    known = {*FigureCanvasBase.get_supported_filetypes()} - NO_FIGURES
    if path.suffix and path.suffix.removeprefix(".").lower() not in known:
        raise UserError(f"can't write {path}: expected a suffix of {', '.join(sorted(known))}: {HINT}")
    check_writable(path, HINT)
    return path


def write_figure(figure: Figure, output: str | Path, title: str = "") -> Path:
    """Writes a figure; its folder is made where it is missing.

    Args:
        figure: The figure.
        output: The file; its suffix names the format, PNG without one.
        title: Title in the metadata of the file.

    Returns:
        The path of the file.

    Raises:
        UserError: If the suffix is unknown, or the file can't be written.
    """
    path = check_figure(output)
    make_folder(path.parent, HINT)
    replace_bytes(path, encode(figure, path.suffix.removeprefix(".") or "png", title), HINT)
    return path
