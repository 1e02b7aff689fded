"""Figures that take no time."""

import sys
from functools import cache

import pytest

BLANK = "TESTS_DRAW_BLANK_FIGURES"  # variable that says so to trainings in processes of their own
STYLE = "lightning_cnn.figures.style"
DRAWING = ("lightning_cnn.tracking.loggers", "lightning_cnn.engine.report")


def draw_blank(patch: pytest.MonkeyPatch, blank: bool = True) -> None:
    """From here on the figures of a training are made, but written blank; or whole again."""
    for name in DRAWING:
        if name in sys.modules:  # where they are not imported nothing is drawn, mostly
            patch.setattr(sys.modules[name], "encode", _blank if blank else sys.modules[STYLE].encode)


def _blank(figure: object) -> bytes:
    return _nothing()


@cache
def _nothing() -> bytes:
    from matplotlib.figure import Figure

    from lightning_cnn.figures.style import encode

    return encode(Figure((1, 1)))
