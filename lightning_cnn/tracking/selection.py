"""Finds runs: all of them, or those that a user names."""

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.notes import say
from lightning_cnn.plain_text import check_text
from lightning_cnn.tracking.record import RECORD
from lightning_cnn.tracking.run import RunFolder

LISTED = "; `list_runs()` shows what there is"


def iter_runs(runs_dir: Path, name: str = "*") -> list[RunFolder]:
    """All runs under a folder, oldest first, each once; folders without a readable record are left out.

    Args:
        runs_dir: The folder of all runs.
        name: The experiment; default all.
    """
    return _read(runs_dir.glob(f"{name}/*/{RECORD}"))[0]


def find_run(runs_dir: Path, name: str) -> RunFolder:
    """The run that a user means by a path, a run id, or `<experiment>/<run id>`.

    Raises:
        UserError: If there is no such run, or the name holds a control character.
    """
    check_text("RUN", name)
    for folder in (Path(name), runs_dir / name, *runs_dir.glob(f"*/{Path(name).name}")):
        if (folder / RECORD).is_file():
            return RunFolder.open(folder)
    hint = did_you_mean(Path(name).name, [run.record.id for run in iter_runs(runs_dir)]) or LISTED
    raise UserError(f"no run {name!r} under {runs_dir}{hint}")


def label(run: RunFolder) -> str:
    """`<experiment>/<run id>`: how a run is shown and typed."""
    return f"{run.record.name}/{run.record.id}"


def all_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run under a folder, oldest first; a note names those whose record is broken."""
    runs, broken = _read(runs_dir.glob(f"*/*/{RECORD}"))
    _note(broken)
    return runs


def some_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run under a folder, of which there must be one.

    Raises:
        UserError: If there is none.
    """
    runs = all_runs(runs_dir)
    if not runs:
        raise UserError(
            f"no runs under {runs_dir}/: start one with `train()`, or set `runs_dir` to the folder of your runs"
        )
    return runs


def select_runs(names: Sequence[str | Path | RunFolder], runs_dir: Path) -> list[RunFolder]:
    """The runs that a user names.

    Args:
        names: Each a run, a path (of a run, of an experiment, or of a folder of all runs), a run id,
            `<experiment>/<run id>`, the name of an experiment (all its runs), or a glob over `<experiment>/<run id>`.
            No names mean all runs.
        runs_dir: The folder of all runs.

    Returns:
        The runs in the order of the names, each once.

    Raises:
        UserError: If a name fits no run, or there are no runs at all.
    """
    if not names:
        return some_runs(runs_dir)
    runs, broken = _read(runs_dir.glob(f"*/*/{RECORD}"))
    known = {label(run): run for run in runs}
    unreadable = {f"{folder.parent.name}/{folder.name}": folder for folder in broken}
    chosen: dict[Path, RunFolder] = {}
    for name in names:
        if isinstance(name, RunFolder):
            found = [name]
        else:
            lost = [folder for entry, folder in unreadable.items() if _fits(str(name), entry)]
            _note(lost)
            found = [run for entry, run in known.items() if _fits(str(name), entry)] or _at_path(Path(name))
            if not found and not lost:
                parts = {part for entry in known for part in (entry, *entry.split("/"))}
                raise UserError(f"no run {str(name)!r} under {runs_dir}/{did_you_mean(str(name), parts) or LISTED}")
        chosen.update((run.folder.resolve(), run) for run in found)
    if not chosen:
        raise UserError("none of the runs you named can be read; see `list_runs()`")
    return list(chosen.values())


def _read(records: Iterable[Path]) -> tuple[list[RunFolder], list[Path]]:
    """The runs of some records, oldest first, each once, and the folders whose record can't be read."""
    runs: list[RunFolder] = []
    broken: list[Path] = []
    found = sorted((path.parent for path in records), key=lambda at: (at.is_symlink() or at.parent.is_symlink(), at))
    for folder in sorted({folder.resolve(): folder for folder in reversed(found)}.values()):  # links give way
        try:
            runs.append(RunFolder.open(folder))
        except UserError:
            broken.append(folder)
    return sorted(runs, key=lambda run: (run.record.start, run.record.id)), broken


def _fits(name: str, entry: str) -> bool:
    experiment, _, run_id = entry.rpartition("/")
    return name in (experiment, run_id, entry) or fnmatch.fnmatchcase(entry, name)


def _at_path(path: Path) -> list[RunFolder]:
    """The run in a folder, or the runs in the folders below it."""
    if (path / RECORD).is_file():
        return [RunFolder.open(path)]
    return _read(path.glob(f"*/{RECORD}"))[0] or all_runs(path)


def _note(broken: Sequence[Path]) -> None:
    if broken:
        say(f"skipped runs whose {RECORD} can't be read: {', '.join(map(str, broken))}", is_warning=True)
