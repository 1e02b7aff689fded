"""Learning curves of several runs as one SVG."""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]

# Okabe and Ito (2008), distinguishable with any color vision; after these, the same with other dashes
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5f5f5f", "#b3a100")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 40
MOST_POINTS = 400  # of one curve: more than there are pixels only makes the page heavy
LOG_FROM = 30.0  # largest / smallest value from which the axis of a loss is logarithmic


def style(index: int) -> tuple[str, str]:
    """Color and dash pattern of the run with this number."""
    return COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]


def curve_chart(metric: str, curves: Sequence[tuple[int, str, Points]], falls: bool) -> Markup:
    """An SVG with one line for each run.

    Args:
        metric: Name of the metric, the title for screen readers.
        curves: Number of the run (it gives the color), its name, and its points.
        falls: Whether less is better; the axis of a metric that falls far is logarithmic.
    """
    xs = [x for _, _, points in curves for x, _ in points]
    ys = [y for _, _, points in curves for _, y in points]
    logarithmic = falls and min(ys) > 0 and max(ys) / min(ys) > LOG_FROM
    y_ticks = _log_ticks(min(ys), max(ys)) if logarithmic else _ticks(min(ys), max(ys))
    low, high = _range(min(ys), max(ys), logarithmic)
    first, last = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 0.5, max(xs) + 0.5)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (_scale(y, logarithmic) - low) / (high - low)
        across = (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(metric)} by epoch">']
    for tick in y_ticks:
        y = at(first, tick)[1]
        if TOP <= y <= HEIGHT - BOTTOM:
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:.10g}</text>')
    for tick in _ticks(first, last, whole=True):
        if first <= tick <= last:
            parts.append(
                f'<text x="{at(tick, ys[0])[0]}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{tick:g}</text>'
            )
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">epoch</text>')
    if logarithmic:
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = f'x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})"'
        parts.append(f'<text class="axis" {turned}>logarithmic scale</text>')
    parts += [_line(index, name, [at(*point) for point in _thin(points)]) for index, name, points in curves]
    return Markup("\n".join([*parts, "</svg>"]))


def _line(index: int, name: str, pixels: Points) -> str:
    color, dash = style(index)
    dots = f'<circle cx="{pixels[-1][0]}" cy="{pixels[-1][1]}" r="3" fill="{color}"/>'
    path = " ".join(f"{x:g},{y:g}" for x, y in pixels)
    line = f'<polyline points="{path}" stroke="{color}" stroke-dasharray="{dash}"/>'
    return f'<g class="curve" data-run="{index}"><title>{escape(name)}</title>{line}{dots}</g>'


def _thin(points: Points) -> Points:
    """Every nth point, and the last."""
    stride = math.ceil(len(points) / MOST_POINTS)
    thinned = points[::stride]
    return thinned if thinned[-1] == points[-1] else [*thinned, points[-1]]


def _scale(value: float, logarithmic: bool) -> float:
    return math.log10(value) if logarithmic else value


def _range(low: float, high: float, logarithmic: bool) -> tuple[float, float]:
    """The ends of the axis: those of the data, with some room."""
    low, high = _scale(low, logarithmic), _scale(high, logarithmic)
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers between two values."""
    rough = (high - low or abs(high) * 0.2 or 1.0) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    if whole:
        step = max(1.0, step)
    start, end = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(start, end + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(exponents) <= 4 else (1,)
    return [factor * 10.0**exponent for exponent in exponents for factor in factors]
