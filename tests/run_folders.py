"""Run folders: writes them as a training would leave them, and reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


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


def record(folder: Path) -> dict[str, Any]:
    """The record of a run."""
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content
