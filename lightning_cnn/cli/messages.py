"""What fields and functions are called on the command line, in errors and notes."""

import re

_FIELD = re.compile(r"`([A-Za-z_]\w*(?:[.+][\w+-]+)*)`")
_FUNCTION = re.compile(r"`(\w+)\(\)`")


def as_typed(message: str) -> str:
    """A message with each field in backticks as the option, and each function as the verb.

    Args:
        message: Such as "`model.lr` x: expected float" or "`list_data()` shows ours".
    """
    message = _FUNCTION.sub(lambda found: f"`lightning-cnn {found[1].replace('_', ' ')}`", message)
    return _FIELD.sub(r"--\1", message)
