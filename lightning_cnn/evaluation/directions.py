"""Metric directions: whether lower or higher values are better, as tasks and callbacks declare. Imports no torch."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from lightning_cnn.errors import UserError

Direction = Literal["min", "max"]
# metrics without their stage, or with it, or patterns such as `acc_*`; None: a description of which no value is better
Better = Mapping[str, Direction | None]
STAGES = ("train", "val", "test", "fold")

# true of every module: a loss is what is minimized
LOSS: Better = {"loss": "min"}

# the metrics of runs whose record says nothing of directions: those that the package had logged until then
EARLIER: Better = {
    **dict.fromkeys(("loss", "loss_*", "ece", "mse", "memory_gib"), "min"),
    **dict.fromkeys(("acc", "acc_*", "f1", "top5", "map", "map50", "map_*", "images_per_s"), "max"),
    **dict.fromkeys(("length_acc", "character_acc", "digit*_acc", "coverage98"), "max"),
    **dict.fromkeys(("auc", "auc_month", "auc_accumulated", "ic", "ic_t", "ic_positive"), "max"),
    **dict.fromkeys(("sharpe", "sharpe_net"), "max"),
}


def declared(*owners: type) -> dict[str, Direction | None]:
    """What classes and their bases declare as `better`; a subclass adds to its bases, and wins over them.

    Args:
        owners: Classes of modules and callbacks.

    Raises:
        UserError: If a declaration is neither `"min"`, `"max"` nor None.
    """
    found: dict[str, Direction | None] = dict(LOSS)
    for owner in owners:
        for kind in reversed(owner.__mro__):
            own: Any = vars(kind).get("better", {})
            for name, direction in own.items() if isinstance(own, Mapping) else ():
                if direction not in ("min", "max", None):
                    raise UserError(
                        f"{kind.__name__}.better: {direction!r} is not a direction of {name}; use 'min' or 'max'"
                    )
                found[name] = direction
    return found


def declared_as(name: str, better: Better) -> str | None:
    """The entry that speaks of a metric: its own name before a pattern; None where there is none.

    Args:
        name: As it is logged, such as `val/f1`.
        better: What is declared.
    """
    names = (name, without_stage(name))
    exact = next((own for own in names if own in better), None)
    return exact or next((entry for own in names for entry in better if fnmatchcase(own, entry)), None)


def direction_of(name: str, better: Better) -> Direction | None:
    """Which way a metric is better: `min` or `max`; None where nothing says so.

    Args:
        name: As it is logged, such as `val/f1`.
        better: What is declared.
    """
    entry = declared_as(name, better)
    return None if entry is None else better[entry]


def agreed(name: str, betters: Iterable[Better | None]) -> Direction | None:
    """Which way a metric of several runs is better; None where they don't agree or don't say it.

    Args:
        name: As it is logged.
        betters: The declarations of the runs that have it, None of runs from before there were any; without a run the
            metric is one of ours.
    """
    directions = {direction_of(name, EARLIER if better is None else better) for better in betters}
    directions = directions or {direction_of(name, EARLIER)}
    return directions.pop() if len(directions) == 1 else None


def without_stage(name: str) -> str:
    """The name of a metric without `train/`, `val/`, `test/` or `fold/`; Lightning's `val_loss` is understood, too."""
    for stage in STAGES:
        for sign in "/_":
            if name.startswith(stage + sign):
                return name[len(stage) + 1 :]
    return name
