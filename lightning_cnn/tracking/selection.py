"""Finds runs: all of them, or those that a user names. A run is its folder, whatever its record says."""

import errno
import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.notes import say
from lightning_cnn.plain_text import check_text
from lightning_cnn.tracking.record import RECORD
from lightning_cnn.tracking.run import RunFolder

LISTED = "; `list_runs()` shows what there is"
SIGNS = "*?["  # of a pattern
NAMED = 5  # so many candidates are named in a message


def iter_runs(runs_dir: Path, name: str = "*") -> list[RunFolder]:
    """All runs under a folder, oldest first, each once; folders without a readable record are left out.

    Args:
        runs_dir: The folder of all runs.
        name: The experiment; default all.
    """
    return [run for run in _read(_folders(runs_dir, name)) if run.status != "damaged"]


def find_run(runs_dir: Path, name: str) -> RunFolder:
    """The run that a user means by a path, a run id, or `<experiment>/<run id>`.

    Raises:
        UserError: If there is no such run, the name fits several, or it holds a control character.
    """
    check_text("RUN", name)
    ids = [folder for folder in _folders(runs_dir) if folder.name == Path(name).name]
    by_id = ids if os.sep not in name else []
    found = {each.resolve(): each for each in (*by_id, runs_dir / name, Path(name)) if _is_run(each)}
    if len(found) > 1:
        raise _ambiguous(name, [_named(folder, runs_dir) for folder in found.values()])
    if found:
        return RunFolder.open(*found.values())
    raise UserError(f"no run {name!r} under {runs_dir}{_hint(name, runs_dir, ids)}")


def all_runs(runs_dir: Path) -> list[RunFolder]:
    """Every run under a folder, oldest first; one whose record can't be read has the status `damaged`."""
    return _read(_folders(runs_dir))


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
        UserError: If a name fits no run, or could mean several things, or there are no runs at all.
    """
    if not names:
        return some_runs(runs_dir)
    known = all_runs(runs_dir)
    chosen: dict[Path, RunFolder] = {}
    for name in names:
        found = [name] if isinstance(name, RunFolder) else _meant(str(name), known) or _at_path(Path(name))
        if not found:
            ids = [run.folder for run in known if run.id == Path(str(name)).name]
            raise UserError(f"no run {str(name)!r} under {runs_dir}/{_hint(str(name), runs_dir, ids)}")
        chosen.update((run.folder.resolve(), run) for run in found)
    return list(chosen.values())


def _meant(name: str, known: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs under the folder of all runs that a name means."""
    if any(sign in name for sign in SIGNS):
        found = [run for run in known if fnmatch.fnmatchcase(run.label, name)]
        if found:
            return found
    by_label = [run for run in known if run.label == name]
    by_experiment = [run for run in known if run.experiment == name]
    by_id = [run for run in known if run.id == name]
    if by_id and (by_experiment or len(by_id) > 1):
        of_all = [f"{name}/*"] if by_experiment else []
        raise _ambiguous(name, [*of_all, *(run.label for run in by_id)])
    return by_label or by_experiment or by_id


def run_folders(runs_dir: Path) -> list[Path]:
    """The folder of every run under a folder, each once, also those that can't be read."""
    return _each_once(_folders(runs_dir))


def _read(folders: Iterable[Path]) -> list[RunFolder]:
    """The runs in some folders, oldest first, each once."""
    return sorted(map(RunFolder.look, _each_once(folders)), key=lambda run: (run.record.start, run.id, run.experiment))


def _each_once(folders: Iterable[Path]) -> list[Path]:
    found = sorted(folders, key=lambda at: (os.path.islink(at) or os.path.islink(at.parent), at))
    parents = {parent: parent.resolve() for parent in {folder.parent for folder in found}}
    places = {}
    for folder in reversed(found):  # links give way
        places[folder.resolve() if os.path.islink(folder) else parents[folder.parent] / folder.name] = folder
    return [*places.values()]


def _folders(runs_dir: Path, name: str = "*") -> Iterator[Path]:
    """The run folders under a folder, also those that can't be read."""
    for experiment in _inside(runs_dir):
        if fnmatch.fnmatchcase(experiment.name, name):
            yield from filter(_is_run, _inside(experiment))


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder; a note says so where it may not be read."""
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries]
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            say(f"skipped runs: {folder} can't be read ({error.strerror})", is_warning=True)
        return []


def _is_run(folder: Path) -> bool:
    """Whether there is a record, be it damaged, or it is not allowed to look."""
    try:
        return (folder / RECORD).exists() and not (folder / RECORD).is_dir()
    except PermissionError:
        return True
    except (OSError, ValueError):  # such as a name that is too long
        return False


def _at_path(path: Path) -> list[RunFolder]:
    """The run in a folder, or the runs in the folders below it."""
    if _is_run(path):
        return [RunFolder.look(path)]
    return _read(filter(_is_run, _inside(path))) or all_runs(path)


def _named(folder: Path, runs_dir: Path) -> str:
    """How to name a run without ambiguity."""
    inside = folder.is_relative_to(runs_dir) and len(folder.relative_to(runs_dir).parts) == 2
    return RunFolder.look(folder).label if inside else os.path.join(".", folder)


def _ambiguous(name: str, candidates: Sequence[str]) -> UserError:
    more = ", ..." if len(candidates) > NAMED else ""
    return UserError(f"{name!r} could mean {', '.join(sorted(candidates)[:NAMED])}{more}: name one of them")


def _hint(name: str, runs_dir: Path, same_id: Sequence[Path]) -> str:
    """The end of an error about a name that fits no run."""
    if same_id:
        candidates = sorted(f"{folder.parent.name}/{folder.name}" for folder in same_id)[:NAMED]
        return f"; did you mean {' or '.join(candidates)}?"
    known = [f"{folder.parent.name}/{folder.name}" for folder in _folders(runs_dir)]
    if of_it := sorted(label for label in known if label.split("/")[0] == name):
        return f"; {name!r} is an experiment: name one of its runs, such as {' or '.join(of_it[-NAMED:])}"
    parts = known if os.sep in name else {part for entry in known for part in entry.split("/")}
    return did_you_mean(name, parts) or LISTED
