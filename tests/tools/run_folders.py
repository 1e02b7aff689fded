"""Run folders: writes them as a training would leave them, and reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image


def write_run(
    runs_dir: Path,
    name: str,
    config: dict[str, Any] | None = None,
    curves: Sequence[tuple[float, float]] = (),
    **fields: Any,
) -> Path:
    """Makes `<experiment>/<run id>`, with `curves` the `val/loss` and `val/acc` of each epoch."""
    experiment, run_id = name.split("/")
    folder = runs_dir / experiment / run_id
    folder.mkdir(parents=True)
    record = {
        "id": run_id,
        "name": experiment,
        "status": "finished",
        "start": "2026-01-01T10:00:00+00:00",
        "end": "2026-01-01T10:01:05+00:00",
        "parameters": 61706,
        "epochs": len(curves),
        "last": {},
    }
    (folder / "run.json").write_text(json.dumps(record | fields))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = ["epoch,step,train/loss,val/acc,val/loss"]
    for epoch, (loss, accuracy) in enumerate(curves):
        lines += [f"{epoch},{10 * epoch},{loss + 0.1},,", f"{epoch},{10 * epoch + 9},,{accuracy},{loss}"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def only_run() -> Path:
    """The folder of the only run in `runs/`."""
    (folder,) = Path("runs").glob("*/*")
    return folder


def runs_in_order(within: Path = Path("runs")) -> list[Path]:
    """The run folders in the order in which they began, which their ids tell to the second only."""
    return sorted((file.parent for file in within.rglob("run.json")), key=lambda run: record(run)["start"])


def record(folder: Path) -> dict[str, Any]:
    """The record of a run."""
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


def logged(folder: Path) -> list[str]:
    """The rows of metrics.csv without what measures time and memory."""
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    measured = ("images_per_s", "memory")
    kept = [column for column, name in enumerate(header) if not any(word in name for word in measured)]
    return [",".join(row[column] for column in kept) for row in [header, *rows]]


def learned(folder: Path, name: str) -> dict[str, Any]:
    """What `last.ckpt` or `best.ckpt` holds of the training: weights, averaged weights, optimiser, schedule."""
    content = torch.load(folder / "checkpoints" / name, weights_only=True)
    parts = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers")
    return {part: content[part] for part in (*parts, "global_step", "epoch") if part in content}


def pictures(folder: Path) -> dict[str, Any]:
    """The pixels of all figures of a run."""
    found = {}
    for path in sorted(folder.glob("figures/*.png")):
        with Image.open(path) as image:
            found[path.name] = torch.from_numpy(np.array(image))
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two pieces of plain data are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
