"""Texts in figures: names as they are, powers of ten as formulas."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lightning_cnn.engine.figure_file import check_figure, write_figure
from lightning_cnn.errors import UserError
from lightning_cnn.figures.style import encode

NAME = r"$\foo{$"  # no formula, and nothing that matplotlib could read as one


def test_names_are_no_formulas_and_powers_of_ten_are() -> None:
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.plot([1e-3, 1e-1], [0, 1], label=NAME)
    axes.set(xscale="log", title=NAME, xlabel=NAME)
    axes.set_yticks([0, 1], [NAME, NAME])
    axes.legend()
    assert encode(figure).startswith(b"\x89PNG")
    texts = [text for text in figure.findobj(Text) if text.get_text()]  # type: ignore[attr-defined]
    parsed = {text.get_text() for text in texts if text.get_parse_math()}
    assert any("10^{-2}" in text for text in parsed) and NAME not in parsed
    assert sum(text.get_text() == NAME for text in texts) >= 5


def test_every_format_that_is_offered_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a suffix of") as refused:
        check_figure("figure.raw")
    offered = str(refused.value).partition("suffix of ")[2].partition(":")[0].split(", ")
    assert {"png", "svg", "pdf", "jpg"} <= {*offered}
    for suffix in (*offered, "PNG", "SVG"):
        figure = Figure(layout="constrained")
        figure.subplots().plot([0, 1], [1, 0], label=NAME)
        path = write_figure(figure, tmp_path / f"figure.{suffix}", "a title")
        assert path.stat().st_size > 500
