"""Texts in figures: names as they are, powers of ten as formulas."""

from matplotlib.figure import Figure
from matplotlib.text import Text

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
