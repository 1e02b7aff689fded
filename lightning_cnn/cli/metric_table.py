"""The short table of a result."""

import math
from collections.abc import Mapping

from lightning_cnn.cli.tables import text_table
from lightning_cnn.tracking.comparison import short

STAGES = ("train", "val", "test")


def metric_table(metrics: Mapping[str, float], stages: tuple[str, ...] = STAGES) -> str:
    """Metrics as rows and stages as columns; those of single classes and of the machine are left out.

    Args:
        metrics: Values by names such as `val/acc`.
        stages: The columns.
    """
    shown = [stage for stage in stages if any(name.startswith(f"{stage}/") for name in metrics)]
    names = sorted({name.split("/", 1)[1] for name in metrics if name.split("/", 1)[0] in shown})
    names = [name for name in names if name in ("loss", "acc") or {f"val/{name}", f"test/{name}"} & metrics.keys()]
    names = [name for name in names if not name.startswith(("acc_", "map_"))]
    names.sort(key=lambda name: (name != "acc", name != "loss", name))
    rows = [["", *shown]]
    rows += [[name, *(_text(metrics.get(f"{stage}/{name}")) for stage in shown)] for name in names]
    return text_table(rows, right=[False, *[True] * len(shown)])


def _text(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else short(value)
