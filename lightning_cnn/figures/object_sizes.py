"""The figure of how many objects are found, by size."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_cnn.figures.style import BLUE, panel


def recall_bars(rows: Sequence[tuple[float, float, int, int]], title: str = "") -> Figure:
    """Recall of objects by their size, with the number of objects above each bar.

    Args:
        rows: Smallest size in pixels, size that none reaches, objects, and how many of them were found; as
            `recall_by_size` returns them. Rows without objects have no bar.
        title: What was measured.
    """
    figure, axes = panel(xlabel="longer side of the object (pixels)", ylabel="recall", ylim=(0, 1.08))
    names = [f"{low:g} and more" if high == float("inf") else f"{low:g} to {high:g}" for low, high, *_ in rows]
    for place, (_, _, objects, found) in enumerate(rows):
        if objects:
            axes.bar(place, found / objects, color=BLUE, width=0.7)
            axes.text(place, found / objects + 0.01, f"{objects:,}", ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(rows)), names)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_title(title, fontsize=9)
    return figure
