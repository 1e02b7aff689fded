"""The style that all figures share: colors, axes, encoding. Plain matplotlib, without a display."""

import io
import warnings
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter

from lightning_cnn.figures.fonts import take_fonts

BLUE, ORANGE, GRAY = "#3366aa", "#dd7722", "#999999"
SMALL = (5.2, 3.6)  # inches
FEW = 3  # dates on an axis, each of which has its label
DPI = 110  # pixels per inch
TITLED = ("png", "svg", "svgz", "pdf")  # formats whose files have a title


def panel(size: tuple[float, float] = SMALL, **labels: Any) -> tuple[Figure, Axes]:
    """A figure with one panel.

    Args:
        size: Width and height in inches.
        labels: What `Axes.set` takes, such as `xlabel`.
    """
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(**labels)
    finish(axes)
    return figure, axes


def finish(axes: Axes) -> None:
    """Gives axes a light grid behind the data and removes the frame above and to the right."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters: of a longer one the middle is replaced by an ellipsis.

    Args:
        text: The text.
        most: Number of characters.
    """
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}\u2026{text[-end:]}"


def show_dates(axes: Axes, months: Any = None) -> None:
    """Labels the horizontal axis with dates, as short as they can be.

    Args:
        axes: The axes.
        months: Where there are few, datetime64: each gets its name.
    """
    if months is not None and len(months) <= FEW:
        axes.set_xticks(months.astype("datetime64[D]"), [str(month) for month in months.astype("datetime64[M]")])
        return
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def encode(figure: Figure, kind: str = "png", title: str = "") -> bytes:
    """The content of an image file.

    Args:
        figure: The figure.
        kind: The format, a suffix such as `png` or `svg`.
        title: Title in the metadata of the file.

    Raises:
        ValueError: If matplotlib does not support the format.
    """
    figure.set_dpi(DPI)
    for text in _literal_texts(figure):
        text.set_parse_math(False)  # the name of a class may contain dollar signs
    take_fonts(figure.findobj(Text))  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # said once, in words
        return _saved(figure, kind, title)


def _saved(figure: Figure, kind: str, title: str) -> bytes:
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)  # otherwise `savefig` renders the figure twice
    content = io.BytesIO()
    # level 3 takes half the time of level 6 for a tenth more bytes
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if kind.lower() == "png" else {}
    if title and kind.lower() in TITLED:
        options["metadata"] = {"Title": title}
    figure.savefig(content, dpi=DPI, format=kind, **options)
    return content.getvalue()


def _literal_texts(figure: Figure) -> set[Text]:
    """All texts of a figure except the tick labels of logarithmic axes, which are formulas."""
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    logarithmic = [axis for axis in axes if isinstance(axis.get_major_formatter(), LogFormatter)]
    powers = {text for axis in logarithmic for text in axis.findobj(Text) if text is not axis.label}
    return set(figure.findobj(Text)) - powers  # type: ignore[arg-type]
