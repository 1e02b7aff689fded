"""The charts of `benchmark`: accuracy or speed against operations, and accuracy per parameter.

Source: Canziani, Culurciello and Paszke, "An Analysis of Deep Neural Network Models for Practical Applications" (2017),
figure 2 and the chart of the accuracy per parameter.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from lightning_cnn.figures.style import BLUE, ORANGE, panel

UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
LARGEST, SMALLEST = 1600.0, 12.0  # area of a bubble, square points
LOG_FROM = 8.0  # largest / smallest value from which an axis is logarithmic
FONT = 8.0
NEAR = 2.0  # points between a bubble and its name, where there is room


class Bubble(NamedTuple):
    """A network in the chart."""

    name: str
    x: float
    y: float
    parameters: int


def short(value: float) -> str:
    """A number as `25.6 M`."""
    for unit, size in UNITS:
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def benchmark_figures(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Figure]:
    """The figures that the measured values allow, by file name.

    Args:
        rows: The lines of the table.
        metric: The column with the accuracies. Where all are missing, one figure shows the speed instead.
    """
    known = [row for row in rows if row[metric] is not None]
    if not known:
        return _speed([row for row in rows if row["inference_images_per_s"] is not None])
    percent = all(0 <= row[metric] <= 1 for row in known)
    factor, unit = (100, " in %") if percent else (1, "")
    label = f"{metric} ({known[0]['data']}){unit}"
    bubbles = [Bubble(r["architecture"], r["operations"], factor * r[metric], r["parameters"]) for r in known]
    density = {b.name: b.y / (b.parameters / 1e6) for b in bubbles if b.parameters}
    return {
        "accuracy_operations.png": bubble_chart(bubbles, label),
        "accuracy_per_parameter.png": bar_chart(density, f"{label} per million parameters"),
    }


def _speed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    if not rows:
        return {}
    bubbles = [Bubble(r["architecture"], r["operations"], r["inference_images_per_s"], r["parameters"]) for r in rows]
    label = f"images per second, inference on {rows[0]['device']}"
    return {"speed_operations.png": bubble_chart(bubbles, label, log_y=True)}


def bubble_chart(bubbles: Sequence[Bubble], y_label: str, log_y: bool = False) -> Figure:
    """Networks against their operations, the area of each bubble by the number of parameters.

    Args:
        bubbles: The networks.
        y_label: What the height means.
        log_y: Whether the vertical axis is logarithmic where the values span much.
    """
    label = "operations for one image (a multiply-add counts as two)"
    figure, axes = panel((8.0, 5.2), xlabel=label, ylabel=y_label)
    most = max(bubble.parameters for bubble in bubbles)
    areas = [_area(bubble.parameters, most) for bubble in bubbles]
    xs, ys = [bubble.x for bubble in bubbles], [bubble.y for bubble in bubbles]
    _scale(axes, "x", xs)
    if log_y:
        _scale(axes, "y", ys)
    axes.scatter(xs, ys, s=areas, color=BLUE, alpha=0.45, edgecolor=BLUE, linewidth=0.8, zorder=2)
    axes.scatter(xs, ys, s=3, color=BLUE, zorder=3)
    axes.margins(0.14, 0.16)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    if log_y:
        axes.yaxis.set_major_formatter(lambda value, _: short(value))
    sizes = sorted({_round(most / share) for share in (100, 10, 1)})
    for size in sizes:
        axes.scatter([], [], s=_area(size, most), color=BLUE, alpha=0.45, edgecolor=BLUE, label=short(size))
    figure.legend(
        title="parameters",
        loc="outside right center",
        frameon=False,
        labelspacing=2.2,
        handletextpad=1.6,
        borderpad=2.0,
    )
    figure.draw_without_rendering()  # settles the layout: where the labels go depends on it
    figure.set_layout_engine("none")
    axes.autoscale(False)
    _label(axes, bubbles, areas)
    return figure


def bar_chart(values: Mapping[str, float], label: str) -> Figure:
    """One bar for each network, the longest on top, with its number."""
    names = sorted(values, key=lambda name: values[name])
    figure, axes = panel((8.0, 1.0 + 0.32 * max(3, len(names))), xlabel=label)
    bars = axes.barh(names, [values[name] for name in names], color=BLUE, height=0.7)
    axes.bar_label(bars, [f"{values[name]:.3g}" for name in names], padding=4, fontsize=FONT)
    axes.margins(x=0.1)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _area(parameters: float, most: float) -> float:
    return max(SMALLEST, LARGEST * parameters / max(most, 1))


def _round(value: float) -> float:
    """With one significant digit, of 1, 2 and 5."""
    size = 10.0 ** math.floor(math.log10(max(value, 1)))
    return max(factor * size for factor in (1, 2, 5) if factor * size <= max(value, 1))


def _scale(axes: Axes, name: Literal["x", "y"], values: Sequence[float]) -> None:
    """Makes an axis logarithmic where the values span much."""
    spread = max(values) / min(values) if min(values) > 0 else 1.0
    if spread > LOG_FROM:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < 100 else (1,)))
        axis.set_minor_formatter(NullFormatter())


def _label(axes: Axes, bubbles: Sequence[Bubble], areas: Sequence[float]) -> None:
    """Writes each name beside its bubble, or with a line to it farther off, where it covers the least of the others."""
    dots = axes.figure.dpi / 72  # pixels in a point
    centres = [axes.transData.transform((bubble.x, bubble.y)) for bubble in bubbles]
    radii = [math.sqrt(area / math.pi) for area in areas]
    taken = [_box(x, y, 2 * (r + 1) * dots, 2 * (r + 1) * dots) for (x, y), r in zip(centres, radii, strict=True)]
    for bubble, (x, y), radius in sorted(zip(bubbles, centres, radii, strict=True), key=lambda item: -item[1][1]):
        text = axes.annotate(
            bubble.name, (bubble.x, bubble.y), (0, 0), textcoords="offset points", ha="center", va="center",
            fontsize=FONT, zorder=4,
        )  # fmt: skip
        width, height = (pixels / dots for pixels in text.get_window_extent().size)
        candidates = []
        for away in (NEAR, 10.0, 20.0, 32.0, 46.0):  # points from the rim
            for angle in (0, 180, 90, 270, 45, 315, 135, 225):
                across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                dx = across * (radius + away) + width / 2 * round(across)
                dy = up * (radius + away) + height / 2 * round(up)
                box = _box(x + dx * dots, y + dy * dots, width * dots, height * dots)
                outside = box.width * box.height - _overlap(box, axes.bbox)
                cost = sum(_overlap(box, other) for other in taken) + 2 * outside + away
                candidates.append((cost, dx, dy, away, box))
        _, dx, dy, away, box = min(candidates, key=lambda candidate: candidate[0])
        taken.append(box)
        text.set_position((dx, dy))
        if away > NEAR:
            nearest = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
            line = axes.transData.inverted().transform([nearest, (x, y)])
            axes.plot(*line.T, color=ORANGE, linewidth=0.8, zorder=2.5)


def _box(x: float, y: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def _overlap(one: Bbox, other: Bbox) -> float:
    """Square pixels that two boxes share."""
    shared = Bbox.intersection(one, other)
    return float(shared.width * shared.height) if shared else 0.0
