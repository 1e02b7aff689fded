"""What the library says while it works: the command line prints it, Python hears it through `logging`.

From Python nothing is shown unless asked: `logging.basicConfig(level="INFO")`.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("lightning_cnn")
LOGGER.addHandler(logging.NullHandler())


class Printing(logging.Handler):
    """Prints each line to wherever `sys.stdout` leads at that moment, or `sys.stderr` for lines on what is is_warning.

    Args:
        convert: What becomes of a line, importable by name: processes that work for this one print, too.
    """

    def __init__(self, convert: Callable[[str], str]) -> None:
        super().__init__()
        self.convert = convert

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a line."""
        stream = sys.stderr if getattr(record, "to_stderr", False) else sys.stdout
        print(self.convert(record.getMessage()), file=stream, flush=True)


def say(line: str, is_warning: bool = False, to_stderr: bool = False) -> None:
    """Says a line about what goes on.

    Args:
        line: Fields and functions in backticks, as in errors.
        is_warning: Whether it says what is missing or left out: a warning, which the command line prints on stderr.
        to_stderr: Whether the command line prints it there all the same, as what shows that something goes on.
    """
    LOGGER.log(logging.WARNING if is_warning else logging.INFO, line, extra={"to_stderr": is_warning or to_stderr})


def conversion() -> Callable[[str], str] | None:
    """What becomes of the lines that are printed; None where none are."""
    return next((handler.convert for handler in LOGGER.handlers if isinstance(handler, Printing)), None)


@contextmanager
def printed(convert: Callable[[str], str] | None) -> Iterator[None]:
    """Prints the lines within the block; with None changes nothing."""
    if convert is None:
        yield
        return
    handler, before = Printing(convert), (LOGGER.level, LOGGER.propagate)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]
