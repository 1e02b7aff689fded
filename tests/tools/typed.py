"""What a command line makes, without running it."""

from lightning_cnn.cli.words import read_words
from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import FIT, TEST, TRAIN, VALIDATE
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.sweep.settings import SWEEP
from lightning_cnn.engine.walkforward.settings import WALK_FORWARD

KINDS = {kind.name: kind for kind in (TRAIN, FIT, VALIDATE, TEST, WALK_FORWARD, SWEEP)}


def typed_config(verb: str, words: list[str]) -> Config:
    """The configuration."""
    return read_words(KINDS[verb], words).config()


def typed(verb: str, words: list[str]) -> Experiment:
    """Its model and data."""
    return Experiment(typed_config(verb, words))
