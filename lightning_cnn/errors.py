"""Errors about user input, reported in one line without a traceback."""

import difflib
import math
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from numbers import Real

Limit = float | None

# the optional dependencies: extra in pyproject.toml -> packages it installs
EXTRAS = {
    "detection": ("pycocotools",),
    "excel": ("python_calamine",),
    "explain": ("captum",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "features": ("pyarrow",),
    "geotiff": ("rasterio",),
    "returns": ("pyarrow", "scipy"),
    "segmentation": ("segmentation_models_pytorch",),
    "slurm": ("submitit",),
    "svhn": ("h5py", "pyarrow", "scipy"),
    "sweep": ("optuna",),
}


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
    field: str, value: float, *, least: Limit = None, above: Limit = None, most: Limit = None, below: Limit = None
) -> None:
    """Refuses a number outside its range, and NaN.

    Args:
        field: Name of the setting, such as `model.lr`.
        value: Its value.
        least: Smallest value that is allowed.
        above: Values must be greater than this.
        most: Largest value that is allowed.
        below: Values must be less than this.

    Raises:
        UserError: If the value lies outside.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UserError(f"`{field}` {value!r}: expected a number")
    fits = (least is None or value >= least) and (above is None or above < value < math.inf)
    if not (fits and (most is None or value <= most) and (below is None or value < below)):
        limits = {"at least": least, "a number above": above, "at most": most, "below": below}
        given = [f"{word} {limit}" for word, limit in limits.items() if limit is not None]
        raise UserError(f"`{field}` {value}: it must be {' and '.join(given)}")


def check_choice(field: str, value: object, valid: Collection[str]) -> None:
    """Refuses a value that is none of those there are.

    Args:
        field: Name of the setting.
        value: Its value.
        valid: All values there are.

    Raises:
        UserError: If it is none of them.
    """
    if value not in valid:
        raise UserError(f"`{field}` {value!r}: expected one of {', '.join(valid)}")


def require(extra: str, what: str, instead: str = "") -> None:
    """Refuses what needs an extra that is not installed. Call it before anything is imported or written.

    Args:
        extra: Name of the extra, such as `returns`.
        what: What needs it, such as the name of a class.
        instead: End of the message: what works without the extra.

    Raises:
        UserError: If a package of the extra is missing.
    """
    missing = [package for package in EXTRAS[extra] if find_spec(package) is None]
    if missing:
        raise UserError(f"{what} needs {', '.join(missing)}: pip install 'lightning-cnn[{extra}]'{instead}")


def first_line(error: BaseException, most: int | None = None) -> str:
    """The first line of what an exception says, or its class where it says nothing.

    Args:
        error: The exception.
        most: Longest line in characters; None for any.
    """
    return (str(error) or type(error).__name__).strip().splitlines()[0][:most]


def did_you_mean(given: str, valid: Iterable[str], count: int = 3) -> str:
    """The valid names that go on after what was typed or are nearest to it, as the end of an error message.

    Args:
        given: What was typed.
        valid: All names that would have been accepted.
        count: How many to offer at most.

    Returns:
        `"; did you mean a, b or c?"`, or an empty string when nothing is near.
    """
    folded = {name.lower(): name for name in sorted(set(valid))}
    typed = given.lower()
    longer = sorted((name for name in folded if name.startswith((f"{typed}_", f"{typed}."))), key=len)
    found = [*longer, *difflib.get_close_matches(typed, folded, n=count, cutoff=0.6)]
    near = [folded[name] for name in dict.fromkeys(found)][:count]
    if not near:
        return ""
    listed = near[0] if len(near) == 1 else ", ".join(near[:-1]) + " or " + near[-1]
    return f"; did you mean {listed}?"
