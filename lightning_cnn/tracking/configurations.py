"""How many configurations were tried on the same data, by the records of the runs."""

from pathlib import Path

from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import iter_runs
from lightning_cnn.tracking.settings import Value, matters, settings_of

# settings by which runs on the same data agree
DATA = ("data", "data.prices", "data.returns")
# settings that change how a run is computed or shown, not what is tried
SAME_TRIAL = (
    *("tags", "ckpt_path", "jobs", "note", "cost_bps", "deciles", "block_months"),
    *("trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
)


def read_settings(folder: Path) -> dict[str, Value]:
    """The flat settings of a run folder, its price file by its full path; empty where they can't be read."""
    settings = settings_of(folder) or {}
    for name in ("data.prices", "data.returns"):
        if isinstance(prices := settings.get(name), str):
            settings[name] = str(Path(prices).resolve())
    return settings


def configurations_tried(run: RunFolder, runs_dir: Path) -> int:
    """The number of different configurations that were trained on the data of a run, its own included.

    Seeds count: who takes the best of ten seeds has tried ten. Runs that ended before their first epoch don't.

    Args:
        run: The run.
        runs_dir: The folder of all runs.
    """
    own = read_settings(run.folder)
    tried = {_trial(own)}
    for other in iter_runs(runs_dir):
        settings = read_settings(other.folder)
        if other.record.epochs and all(settings.get(name) == own.get(name) for name in DATA):
            tried.add(_trial(settings))
    return len(tried)


def _trial(settings: dict[str, Value]) -> frozenset[tuple[str, Value]]:
    return frozenset(item for item in settings.items() if matters(item[0]) and item[0] not in SAME_TRIAL)
