"""The argument parser of the verbs that don't train."""

import argparse
from typing import Any, NoReturn

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.plain_text import check_texts


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but no `(default: None)` and `(default: False)`, which tell a user nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


ANY_TEXT = ("images", "note")  # files that are there, whatever they are called; and text that is only shown


class VerbParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose errors are one `UserError` line and name the nearest option.

    Control characters in the values of options are such an error.

    Args:
        verb: The verb, as typed after `lightning-cnn`.
        description: What the verb does.
    """

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(
            prog=f"lightning-cnn {verb}",
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def parse_known_args(self, *args: Any, **named: Any) -> Any:
        """The parsed options, and the words that are none."""
        options, words = super().parse_known_args(*args, **named)
        check_texts(vars(options), skip=ANY_TEXT)
        return options, words

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`."""
        hint = ""
        if message.startswith("unrecognized arguments: "):
            options = [name for action in self._actions for name in action.option_strings]
            hint = did_you_mean(message.split()[2].split("=")[0], options)
        raise UserError(message + (hint or f"; see {self.prog} --help"))
