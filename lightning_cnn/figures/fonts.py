"""Fonts for texts in any script: names of classes may have characters that the usual font lacks."""

from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

from lightning_cnn.notes import say

LAST_RESORT = "Last Resort"  # matplotlib's font of boxes
_said: set[str] = set()


def take_fonts(texts: Iterable[Text]) -> None:
    """Gives texts further installed fonts for the characters that their own lacks; says once which no font has.

    Args:
        texts: The texts of a figure.
    """
    for text in texts:
        missing = _wanted(text.get_text()) - _characters(findfont(text.get_fontproperties()))
        if not missing:
            continue
        found = _fonts(frozenset(missing))
        if found:
            text.set_fontfamily([*text.get_fontfamily(), *found])
        known = set[str]().union(*(_characters(path) for path in found.values()))
        if unknown := missing - known - _said:
            _said.update(unknown)
            say(
                f"no installed font has the characters {''.join(sorted(unknown))}, drawn as boxes in figures: install "
                "one that has them, such as Noto Sans CJK",
                is_warning=True,
            )


def _wanted(text: str) -> set[str]:
    return {character for character in text if character.isprintable() and not character.isspace()}


@cache
def _characters(path: str) -> frozenset[str]:
    """All characters that a font has."""
    return frozenset(map(chr, get_font(path).get_charmap()))


@cache
def _fonts(missing: frozenset[str]) -> dict[str, str]:
    """Names and files of as few installed fonts as possible that have as many of some characters as possible."""
    upright = [
        font
        for font in sorted(fontManager.ttflist, key=lambda font: (font.name, font.fname))
        if font.style == "normal" and font.weight in (400, "normal", "regular", "book") and LAST_RESORT not in font.name
    ]
    chosen: dict[str, str] = {}
    while missing and upright:
        best = max(upright, key=lambda font: len(missing & _characters(font.fname)))
        if not missing & _characters(best.fname):
            break
        chosen[best.name] = best.fname
        missing -= _characters(best.fname)
    return chosen
