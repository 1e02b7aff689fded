"""What goes wrong in a way that the user can mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Printed as one line `error: ...` without a traceback; the process ends with exit code 2.

    The message names what was given, what was expected, and what to type instead.
    """


class StorageError(UserError):
    """A file or folder can't be written, or is gone: the disk is full or read-only, or the run folder was removed.

    The message names the file and, on a full disk, how much is missing. A run that ends by it is interrupted, not
    failed: it goes on when there is room.
    """


class KilledError(UserError):
    """A worker process was killed, possibly because memory ran out; its run is marked interrupted, not failed."""


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
