"""What goes wrong in a way that the user can mend."""

import difflib
import math
from collections.abc import Iterable


class UserError(Exception):
    """Printed as one line `error: ...` without a traceback; the process ends with exit code 2.

    The message names what was given, what was expected, and what to type instead. Settings and functions stand in
    backticks, as in `model.lr` and `list_runs()`: the command line shows them as what is typed there.
    """


class StorageError(UserError):
    """A file or folder can't be written, or is gone: the disk is full or read-only, or the run folder was removed.

    The message names the file and, on a full disk, how much is missing. A run that ends by it is interrupted, not
    failed: it goes on when there is room.
    """


class KilledError(UserError):
    """A worker process was killed, possibly because memory ran out; its run is marked interrupted, not failed."""


def check(
    field: str, value: float, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """Refuses a number outside its range, and NaN.

    Args:
        field: Name of the setting, such as `model.lr`.
        value: Its value.
        least: Smallest value that is allowed.
        above: Values must be greater than this.
        most: Largest value that is allowed.

    Raises:
        UserError: If the value lies outside.
    """
    if least is not None and not value >= least:
        raise UserError(f"`{field}` {value}: it must be at least {least}")
    if above is not None and not above < value < math.inf:
        raise UserError(f"`{field}` {value}: it must be a number above {above}")
    if most is not None and not value <= most:
        raise UserError(f"`{field}` {value}: it must be at most {most}")


def did_you_mean(given: str, valid: Iterable[str], count: int = 3) -> str:
    """The valid names nearest to a mistyped one, as the end of an error message.

    Args:
        given: What was typed.
        valid: All names that would have been accepted.
        count: How many to offer at most.

    Returns:
        `"; did you mean a, b or c?"`, or an empty string when nothing is near.
    """
    names = sorted(set(valid))
    folded = {name.lower(): name for name in names}
    near = [folded[match] for match in difflib.get_close_matches(given.lower(), folded, n=count, cutoff=0.6)]
    if not near:
        return ""
    listed = near[0] if len(near) == 1 else ", ".join(near[:-1]) + " or " + near[-1]
    return f"; did you mean {listed}?"
