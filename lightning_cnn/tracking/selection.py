"""Which runs a user means."""

import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.tracking.run import RECORD, Run, iter_runs


def label(run: Run) -> str:
    """`<experiment>/<run id>`: how a run is shown and typed."""
    return f"{run.record.name}/{run.record.id}"


def all_runs(runs_dir: Path) -> list[Run]:
    """Every run under a folder, oldest first; a line on stderr names those whose record is broken."""
    broken: list[Path] = []
    runs = list(iter_runs(runs_dir, broken))
    _note(broken)
    return runs


def some_runs(runs_dir: Path) -> list[Run]:
    """Every run under a folder, of which there must be one.

    Raises:
        UserError: If there is none.
    """
    runs = all_runs(runs_dir)
    if not runs:
        raise UserError(
            f"no runs under {runs_dir}/: make one with `lightning-cnn train --data Digits`, "
            "or name the folder that has them with --runs_dir"
        )
    return runs


def select_runs(names: Sequence[str], runs_dir: Path) -> list[Run]:
    """The runs that a user names.

    Args:
        names: Each a path, a run id, `<experiment>/<run id>`, the name of an experiment (all its runs), or a glob over
            `<experiment>/<run id>`. No names mean all runs.
        runs_dir: The folder of all runs.

    Returns:
        The runs in the order of the names, each once.

    Raises:
        UserError: If a name fits no run, or there are no runs at all.
    """
    if not names:
        return some_runs(runs_dir)
    broken: list[Path] = []
    known = {label(run): run for run in iter_runs(runs_dir, broken)}
    unreadable = {f"{folder.parent.name}/{folder.name}": folder for folder in broken}
    chosen: dict[Path, Run] = {}
    for name in names:
        matching = [entry for entry in [*known, *unreadable] if _fits(name, entry)]
        _note([unreadable[entry] for entry in matching if entry in unreadable])
        runs = [known[entry] for entry in matching if entry in known] or _at_path(Path(name))
        if not runs and not matching:
            raise UserError(f"no run {name!r} under {runs_dir}/{_nearest(name, known)}")
        chosen.update((run.folder.resolve(), run) for run in runs)
    if not chosen:
        raise UserError("none of the runs you named can be read; see lightning-cnn list runs")
    return list(chosen.values())


def _fits(name: str, entry: str) -> bool:
    experiment, _, run_id = entry.rpartition("/")
    return name in (experiment, run_id, entry) or fnmatch.fnmatchcase(entry, name)


def _at_path(path: Path) -> list[Run]:
    """The run in a folder, or the runs in the folders below it."""
    if (path / RECORD).is_file():
        return [Run.open(path)]
    return sorted((Run.open(record.parent) for record in path.glob(f"*/{RECORD}")), key=lambda run: run.record.start)


def _nearest(name: str, known: dict[str, Run]) -> str:
    parts = {part for entry in known for part in (entry, *entry.split("/"))}
    return did_you_mean(name, parts) or "; `lightning-cnn list runs` shows what there is"


def _note(broken: Sequence[Path]) -> None:
    if broken:
        print(f"left out, {RECORD} can't be read: {', '.join(map(str, broken))}", file=sys.stderr)
