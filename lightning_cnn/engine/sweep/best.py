"""best.yaml: the configuration of the best trial of a sweep, to be trained and tested."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from lightning_cnn.regular_files import read_regular
from lightning_cnn.resume.files import replace_text, storing
from lightning_cnn.tracking.record import CONFIG

BEST = "best.yaml"
RUN = "run"  # under which the name of its run is noted with a trial


def write_best(home: Path, monitor: str, best: FrozenTrial, config: Mapping[str, Any]) -> None:
    """Writes the configuration of a trial, unless it is there.

    Args:
        home: Folder of the sweep.
        monitor: What chose it.
        best: The trial.
        config: The whole configuration of the sweep.

    Raises:
        StorageError: If it can't be written, or the run of the trial is gone.
    """
    run = best.user_attrs[RUN]
    comment = f"# The best trial of {home.name}: {monitor} {best.value:.6g} in run {run}\n"
    with suppress(FileNotFoundError):
        if (home / BEST).read_text().startswith(comment):
            return
    with storing(home / run / CONFIG):
        content = yaml.safe_load(read_regular(home / run / CONFIG))
    content |= {"experiment": f"{home.name}_best", "runs_dir": config["runs_dir"]}
    kept = ("enable_progress_bar", "enable_model_summary", "devices")  # a trial has none, and one device
    content["trainer"] |= {name: config["trainer"][name] for name in kept}
    replace_text(home / BEST, comment + yaml.safe_dump(content, sort_keys=False))
