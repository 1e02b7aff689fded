"""Finds runs: all of them, or those that a user names."""

import fnmatch
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.plain_text import check_text
from lightning_cnn.tracking.record import RECORD
from lightning_cnn.tracking.run import RunFolder


def iter_runs(runs_dir: Path, broken: list[Path] | None = None, name: str = "*") -> Iterator[RunFolder]:
    """All runs under a folder, oldest first, each once; folders without a readable record are left out.

    Args:
        runs_dir: The folder of all runs.
        broken: Is given the folders whose record can't be read.
        name: The experiment; default all.
    """
    runs: list[RunFolder] = []
    seen: set[Path] = set()
    for path in sorted(runs_dir.glob(f"{name}/*/{RECORD}"), key=lambda path: (_by_link(path.parent), path)):
        if (place := path.resolve()) in seen:
            continue
        seen.add(place)
        try:
            runs.append(RunFolder.open(path.parent))
        except UserError:
            if broken is not None:
                broken.append(path.parent)
    yield from sorted(runs, key=lambda run: (run.record.start, run.record.id))


def _by_link(folder: Path) -> bool:
    return folder.is_symlink() or folder.parent.is_symlink()


def find_run(runs_dir: Path, name: str) -> RunFolder:
    """The run that a user means by a path, a run id, or `<experiment>/<run id>`.

    Raises:
        UserError: If there is no such run, or the name holds a control character.
    """
    check_text("RUN", name)
    for folder in (Path(name), runs_dir / name, *runs_dir.glob(f"*/{Path(name).name}")):
        if (folder / RECORD).is_file():
            return RunFolder.open(folder)
    known = [run.record.id for run in iter_runs(runs_dir)]
    hint = did_you_mean(Path(name).name, known) or "; `lightning-cnn list runs` shows what there is"
    raise UserError(f"no run {name!r} under {runs_dir}{hint}")


def label(run: RunFolder) -> str:
    """`<experiment>/<run id>`: how a run is shown and typed."""
    return f"{run.record.name}/{run.record.id}"


def all_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run under a folder, oldest first; a line on stderr names those whose record is broken."""
    broken: list[Path] = []
    runs = list(iter_runs(runs_dir, broken))
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
            f"no runs under {runs_dir}/: make one with `train()`, or name the folder that has them with `runs_dir`"
        )
    return runs


def select_runs(names: Sequence[str], runs_dir: Path) -> list[RunFolder]:
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
    chosen: dict[Path, RunFolder] = {}
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


def _at_path(path: Path) -> list[RunFolder]:
    """The run in a folder, or the runs in the folders below it."""
    if (path / RECORD).is_file():
        return [RunFolder.open(path)]
    return sorted(
        (RunFolder.open(record.parent) for record in path.glob(f"*/{RECORD}")), key=lambda run: run.record.start
    )


def _nearest(name: str, known: dict[str, RunFolder]) -> str:
    parts = {part for entry in known for part in (entry, *entry.split("/"))}
    return did_you_mean(name, parts) or "; `lightning-cnn list runs` shows what there is"


def _note(broken: Sequence[Path]) -> None:
    if broken:
        print(f"left out, {RECORD} can't be read: {', '.join(map(str, broken))}", file=sys.stderr)
