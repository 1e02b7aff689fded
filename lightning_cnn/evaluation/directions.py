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
    """Collects what classes and their bases declare as `better`; entries of a subclass replace those of its bases.

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
    """The entry for a metric: its exact name before a pattern; None if there is none.

    Args:
        name: As it is logged, such as `val/f1`.
        better: What is declared.
    """
    names = (name, without_stage(name))
    exact = next((own for own in names if own in better), None)
    return exact or next((entry for own in names for entry in better if fnmatchcase(own, entry)), None)


def direction_of(name: str, better: Better) -> Direction | None:
    """Direction in which a metric is better: `min` or `max`; None if it is not declared.

    Args:
        name: As it is logged, such as `val/f1`.
        better: What is declared.
    """
    entry = declared_as(name, better)
    return None if entry is None else better[entry]


def agreed(name: str, betters: Iterable[Better | None]) -> Direction | None:
    """Direction in which a metric of several runs is better; None if they disagree or do not declare it.

    Args:
        name: As it is logged.
        betters: The declarations of the runs that have it, None of runs from before there were any; without a run the
            metric is one of ours.
    """
    directions = {direction_of(name, EARLIER if better is None else better) for better in betters}
    directions = directions or {direction_of(name, EARLIER)}
    return directions.pop() if len(directions) == 1 else None


def without_stage(name: str) -> str:
    """The name of a metric without `train/`, `val/`, `test/` or `fold/`, or Lightning's `val_`."""
    for stage in STAGES:
        for sign in "/_":
            if name.startswith(stage + sign):
                return name[len(stage) + 1 :]
    return name
