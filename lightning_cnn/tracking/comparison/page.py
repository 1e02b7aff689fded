"""The page of `compare --html`: one file with its styles and script inside, that needs no network."""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from lightning_cnn import __version__
from lightning_cnn.figures.svg_curves import curve_chart, style
from lightning_cnn.tracking.comparison.rows import (
    RUN,
    STATUS,
    Column,
    Row,
    better,
    missing,
    order,
    shown,
)
from lightning_cnn.tracking.history import read_history
from lightning_cnn.tracking.run import METRICS
from lightning_cnn.tracking.settings import Value

CURVES = ("val/loss", "val/acc")
GROUPS = {
    "fact": "",
    "best": "best checkpoint",
    "metric": "metrics of the best checkpoint",
    "last": "last epoch",
    "setting": "settings that differ",
}

_STYLE = """
:root { --ink: #1d2430; --soft: #667085; --line: #e3e7ee; --paper: #fff; --ground: #f5f6f9; --mark: #eef4ff; }
* { box-sizing: border-box; }
body { margin: 0; padding: 28px 32px 48px; background: var(--ground); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 22px; }
h2 { margin: 0 0 6px; font-size: 15px; }
p { margin: 4px 0 20px; color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  margin-bottom: 18px; }
.card.wide { padding: 0; overflow: auto; max-height: 90vh; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); }
.curve polyline { fill: none; stroke-width: 2; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.dim .curve { opacity: .12; }
.dim .curve.lit { opacity: 1; }
.dim .curve.lit polyline { stroke-width: 3; }
.hidden { display: none; }
table { border-collapse: separate; border-spacing: 0; width: 100%; white-space: nowrap; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 9px; text-align: left; border-bottom: 1px solid var(--line); }
thead { position: sticky; top: 0; z-index: 2; }
thead th { background: var(--paper); font-weight: 600; }
.groups th { padding: 9px 9px 0; border-bottom: 0; font-size: 11px; font-weight: 600; color: var(--soft);
  letter-spacing: .06em; text-transform: uppercase; }
th.first, td.first { border-left: 1px solid var(--line); }
th:first-child, td:first-child { border-left: 0; position: sticky; left: 0; background: var(--paper); }
@media (max-width: 700px) { th:first-child, td:first-child { position: static; } }
tbody tr:hover td { background: var(--mark); }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; }
.empty { color: #a5adba; }
.top { font-weight: 700; }
th button { all: unset; cursor: pointer; }
th button:hover { text-decoration: underline; }
th button:focus-visible, .swatch:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
th button::after, th.number button::before { content: ""; display: inline-block; width: 14px; color: #0072b2; }
th.number button::after { display: none; }
th[aria-sort=ascending] button::after, th.number[aria-sort=ascending] button::before { content: "\\2191"; }
th[aria-sort=descending] button::after, th.number[aria-sort=descending] button::before { content: "\\2193"; }
.swatch { all: unset; display: inline-block; vertical-align: middle; width: 26px; margin-right: 10px; cursor: pointer; }
.swatch[aria-pressed=false] { opacity: .2; }
.status { padding: 2px 9px; border-radius: 99px; font-size: 12px; background: #eef0f4; color: #475467; }
.status.finished { background: #e3f6ec; color: #05603a; }
.status.running { background: #e4effd; color: #0b4a99; }
.status.failed { background: #fdeaea; color: #a11d1d; }
.status.pruned { background: #f1ebfb; color: #53389e; }
.status.interrupted { background: #fdf1dd; color: #8a4b06; }
"""

_SCRIPT = """
const body = document.querySelector("tbody"), page = document.body;
document.querySelectorAll("th button").forEach(button => button.onclick = () => {
  const head = button.parentElement, column = Number(head.dataset.column);
  const first = head.dataset.descending ? "descending" : "ascending";
  const second = first === "ascending" ? "descending" : "ascending";
  const way = head.getAttribute("aria-sort") === first ? second : first;
  const value = row => row.cells[column].dataset.value;
  const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", {numeric: true}) : a - b;
  const rows = [...body.rows], filled = rows.filter(row => value(row) !== "");
  filled.sort((a, b) => compare(value(a), value(b)) * (way === "ascending" ? 1 : -1));
  body.append(...filled, ...rows.filter(row => value(row) === ""));
  document.querySelectorAll("th[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", way);
});
const curves = run => document.querySelectorAll(`.curve[data-run="${run}"]`);
const light = run => { page.classList.add("dim"); curves(run).forEach(curve => curve.classList.add("lit")); };
const calm = () => { page.classList.remove("dim");
  document.querySelectorAll(".lit").forEach(curve => curve.classList.remove("lit")); };
[...body.rows].forEach(row => {
  const run = row.dataset.run, swatch = row.querySelector(".swatch");
  if (curves(run).length) { row.onmouseenter = () => light(run); row.onmouseleave = calm; }
  if (swatch) swatch.onclick = () => {
    const visible = swatch.getAttribute("aria-pressed") === "true";
    swatch.setAttribute("aria-pressed", String(!visible));
    curves(run).forEach(curve => curve.classList.toggle("hidden", visible));
  };
});
document.querySelectorAll(".curve").forEach(curve => {
  curve.onmouseenter = () => light(curve.dataset.run); curve.onmouseleave = calm; });
"""


def page(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The whole page.

    Args:
        columns: The columns of the table.
        rows: The runs, in the order in which they are shown first.
    """
    charts, drawn = _charts(columns, rows)
    experiments = len({row.run.record.name for row in rows})
    counted = f"{_count(len(rows), 'run')} of {_count(experiments, 'experiment')}"
    hint = "Click a header to sort" + (
        ", a color to hide its curve; point at a run to see its curve." if drawn else "."
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{counted} - lightning_cnn</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{counted}</h1>
<p>lightning_cnn {escape(__version__)}, {datetime.now():%Y-%m-%d %H:%M}. {hint}</p>
{charts}
<div class="card wide">
<table>
<thead>
{_head(columns, rows)}
</thead>
<tbody>
{_body(columns, rows, drawn)}
</tbody>
</table>
</div>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _charts(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[str, set[int]]:
    """The charts of all metrics that have curves, and the numbers of the runs that are in one."""
    metrics = list(dict.fromkeys([*CURVES, *(column.name for column in columns if column.kind == "metric")]))
    curves = [read_history(row.run.folder / METRICS, metrics) for row in rows]
    cards = []
    drawn: set[int] = set()
    for metric in metrics:
        lines = [(i, str(rows[i].cells[RUN]), found[metric]) for i, found in enumerate(curves) if metric in found]
        if any(len(points) > 1 for _, _, points in lines) or (lines and metric in CURVES):
            drawn.update(i for i, _, _ in lines)
            way = better(metric, [rows[i].run for i, _, _ in lines])
            cards.append(f'<div class="card"><h2>{escape(metric)}</h2>\n{curve_chart(metric, lines, way)}</div>')
    return (f'<div class="charts">\n{"".join(cards)}\n</div>' if cards else ""), drawn


def _head(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    groups, names = [], []
    classes = _classes(columns, rows)
    for i, column in enumerate(columns):
        if _begins_group(columns, i):
            span = sum(other.kind == column.kind for other in columns)
            groups.append(f'<th class="first" colspan="{span}">{GROUPS[column.kind]}</th>')
        way = ' data-descending="1"' if column.descending else ""
        title = f"<button>{escape(column.name)}</button>"
        names.append(f'<th class="{classes[i]}" data-column="{i}"{way}>{title}</th>')
    return f'<tr class="groups">{"".join(groups)}</tr>\n<tr>{"".join(names)}</tr>'


def _body(columns: Sequence[Column], rows: Sequence[Row], drawn: set[int]) -> str:
    top = {column: _top(column, rows) for column in columns}
    classes = _classes(columns, rows)
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for i, column in enumerate(columns):
            value = row.cells[column]
            marks = classes[i] + " empty" * missing(value)
            marks += " top" * (top[column] is not None and value == top[column])
            text = escape(shown(column, value))
            if column == STATUS:
                text = f'<span class="status {text}">{text}</span>'
            elif column == RUN and number in drawn:
                text = _swatch(number) + text
            data = "" if missing(value) else escape(str(value).lower() if isinstance(value, bool) else str(value))
            cells.append(f'<td class="{marks.strip()}" data-value="{data}">{text}</td>')
        lines.append(f'<tr data-run="{number}">{"".join(cells)}</tr>')
    return "\n".join(lines)


def _swatch(number: int) -> str:
    """The run's line in the charts, as a button that hides it."""
    colour, dash = style(number)
    line = f'<line x1="0" x2="26" y1="5" y2="5" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
    label = 'aria-label="show its curves" aria-pressed="true"'
    return f'<button class="swatch" {label}><svg viewBox="0 0 26 10">{line}</svg></button>'


def _top(column: Column, rows: Sequence[Row]) -> Value:
    """The best value of a column of results; None where nothing can be called best."""
    if column.better is None or column.kind == "last" or len(rows) < 2:
        return None
    values = [row.cells[column] for row in rows if not missing(row.cells[column])]
    return (max if column.descending else min)(values, key=order, default=None)


def _begins_group(columns: Sequence[Column], i: int) -> bool:
    return i == 0 or columns[i - 1].kind != columns[i].kind


def _classes(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """For each column: whether a group of columns begins with it, and whether it holds numbers."""
    found = []
    for i, column in enumerate(columns):
        numeric = all(isinstance(row.cells[column], int | float | None) for row in rows)
        found.append(" ".join(["first"] * _begins_group(columns, i) + ["number"] * numeric))
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
