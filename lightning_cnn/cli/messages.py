"""What fields and functions are called on the command line, in errors and notes."""

import ast
import re
import shlex
from typing import Any

_FIELD = re.compile(r"`([A-Za-z_]\w*(?:[.+][\w+-]+)*)`")
_FUNCTION = re.compile(r"`(\w+)\(\)`")
_CALL = re.compile(r"`(\w+\(\w+=[^`]*\))`")


def as_typed(message: str) -> str:
    """A message with each field in backticks as the option, each function as the verb, and each call as the command.

    Args:
        message: Such as "`model.lr` x: expected float", "`list_data()` shows ours" or "go on by `train(resume='x')`".
    """
    message = _CALL.sub(_command, message)
    message = _FUNCTION.sub(lambda found: f"`lightning-cnn {_verb(found[1])}`", message)
    return _FIELD.sub(r"--\1", message)


def _command(found: re.Match[str]) -> str:
    """`lightning-cnn sweep --resume x` of `sweep(resume='x')`."""
    try:
        call: Any = ast.parse(found[1], mode="eval").body
        words = [word for each in call.keywords for word in (f"--{each.arg}", str(ast.literal_eval(each.value)))]
        return shlex.join(["lightning-cnn", *_verb(call.func.id).split(), *words])
    except (SyntaxError, ValueError, AttributeError):  # no call of ours
        return found[0]


def _verb(function: str) -> str:
    """`walkforward` of `walk_forward`, `list data` of `list_data`."""
    return "walkforward" if function == "walk_forward" else function.replace("_", " ")
