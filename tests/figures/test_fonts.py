"""Texts in any script: a font that has the characters, or one line that no font has them."""

import logging
import warnings

import pytest
from matplotlib.font_manager import FontProperties, findfont

from lightning_cnn.figures import fonts
from lightning_cnn.figures.style import encode, panel


def own() -> frozenset[str]:
    return fonts._characters(findfont(FontProperties()))


def test_a_font_that_has_the_character() -> None:
    others = fonts._characters(findfont("STIXGeneral")) - own()
    rare = min(character for character in others if character.isalpha())
    figure, axes = panel(title=f"$$ {rare}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(figure)
    _, *more = axes.title.get_fontfamily()
    assert more and any(rare in fonts._characters(findfont(name)) for name in more)
    assert axes.title.get_text() == f"$$ {rare}" and not axes.title.get_parse_math()


def test_a_character_that_no_font_has_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "_said", set())
    monkeypatch.setattr(fonts, "_fonts", lambda missing: {})
    with caplog.at_level(logging.WARNING, logger="lightning_cnn"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for title in ("猫", "猫 and 犬", "犬"):
            encode(panel(title=title)[0])
    found = [record.getMessage() for record in caplog.records]
    assert [line.split("characters ")[1].split(",")[0] for line in found] == ["猫", "犬"]


def test_usual_text_keeps_its_font() -> None:
    figure, axes = panel(title="cat \u2713", xlabel="true")
    before = axes.title.get_fontfamily()
    encode(figure)
    assert axes.title.get_fontfamily() == before
