"""Decides which modules a checkpoint or run may import.

A checkpoint names the classes of its model and data, and their arguments may name a module that registers a network.
Importing a module runs its code. Your own runs may therefore import any module; other files only modules of this
package and those passed with `--trust`. Each name is checked before it is imported or called.
"""

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from lightning_cnn.errors import UserError
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking import upgrades
from lightning_cnn.tracking.record import CONFIG, RECORD, SWEEP, default_runs_dir
from lightning_cnn.tracking.runs_dirs import remember_runs_dir, remembered_runs_dirs
from lightning_cnn.user_code import import_named, may_import, refused, user_code


def is_own(file: str | Path) -> bool:
    """Whether a file is the user's own.

    That are those in a run or sweep under `runs/` or `$LIGHTNING_CNN_RUNS`, under a `--runs_dir` that was typed, now or
    when this user made a run there, and in `$LIGHTNING_CNN_RUN`. Other files in these folders are not: a folder of runs
    may also be one of downloads.

    Args:
        file: A checkpoint, the folder of a run, or a file in it.
    """
    given, own = os.environ.get(RUN_FOLDER), {str(default_runs_dir()), *user_code().runs_dirs, *remembered_runs_dirs()}
    for absolute in (os.path.abspath, os.path.realpath):  # as it is written, or by the links in it
        path = Path(absolute(file))
        if given and path.is_relative_to(absolute(given)):
            return True
        for top in {Path(absolute(folder)) for folder in own}:
            if any(
                folder != top and folder.is_relative_to(top) and _is_run(folder) for folder in (path, *path.parents)
            ):
                return True
    return False


def note_origin(file: str | Path, is_config: bool = False) -> None:
    """Notes that a file is about to be used; from one of somebody else on, names are looked at.

    Args:
        file: A checkpoint, the folder of a run, or its configuration.
        is_config: Whether the run's configuration is used, too.
    """
    if not is_own(file):
        code = user_code()
        code.foreign, code.own_runs = code.foreign or str(file), str(default_runs_dir())
        code.foreign_config |= is_config


def lies_in_run(config: str) -> bool:
    """Whether a configuration is that of a run or a sweep, and no file that the user has written."""
    folders = Path(os.path.abspath(config)).parents[:2]
    return any(map(_is_run, folders))


def remember(runs_dir: Path) -> None:
    """Remembers a folder of runs as the user's, where the user has typed it, and a run has been made in it."""
    folder = runs_dir.resolve()
    known = {os.path.realpath(each) for each in (str(default_runs_dir()), *remembered_runs_dirs())}
    typed = any(os.path.realpath(each) == str(folder) for each in user_code().runs_dirs)
    if typed and str(folder) not in known:
        remember_runs_dir(folder)


def trust_words() -> list[str]:
    """`--trust` with each module that the user has named, for a job that reads a file of somebody else."""
    code = user_code()
    return [word for name in sorted(code.names) for word in ("--trust", name)] if code.foreign else []


def class_named(class_path: Any, kind: type) -> type:
    """The class that a file names, before it is called with anything.

    Args:
        class_path: Its dotted name.
        kind: What it must derive from.

    Raises:
        UserError: If it is of another kind, is not there, or its module may not be imported.
    """
    class_path = upgrades.class_path(class_path) if isinstance(class_path, str) else class_path
    parts = class_path.split(".") if isinstance(class_path, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"the checkpoint names {str(class_path)[:80]!r}, which is not a class; use another checkpoint")
    module, name = ".".join(parts[:-1]), parts[-1]
    if may_import(module):
        try:
            found = getattr(import_named(module), name)
        except (ImportError, AttributeError):
            raise UserError(
                f"cannot import {class_path}, which the checkpoint needs; run from the folder that contains its module"
            ) from None
    elif module in sys.modules:  # it has been imported anyway; `getattr` might import more
        found = vars(sys.modules[module]).get(name)
    else:
        raise refused(class_path)
    if not isinstance(found, type) or not issubclass(found, kind):
        raise UserError(f"the checkpoint names {class_path}, which is not a {kind.__name__}; use another checkpoint")
    if not may_import(found.__module__):
        raise refused(class_path)
    return found


def check_arguments(arguments: Any, ours: bool) -> None:
    """Refuses names among the arguments of a class that would become code, in a file of somebody else.

    Args:
        arguments: Plain data.
        ours: Whether the class is of this package: none of its arguments is an object by name, but for networks, which
            `import_named` looks at.

    Raises:
        UserError: For the first such name.
    """
    if not user_code().foreign:
        return
    if isinstance(arguments, dict):
        if "class_path" in arguments and (ours or not may_import(arguments["class_path"])):
            raise refused(arguments["class_path"])
        for value in arguments.values():
            check_arguments(value, ours)
    elif isinstance(arguments, list | tuple | set):
        for value in arguments:
            check_arguments(value, ours)
    elif isinstance(arguments, str) and not ours:
        parts = arguments.split(".")
        dotted = len(parts) > 1 and all(part.isidentifier() for part in parts)
        if dotted and not may_import(arguments) and _is_module(parts[0]):
            raise refused(arguments)


def _is_module(name: str) -> bool:
    """Whether there is a top-level module of this name; nothing is imported."""
    here = PathFinder.find_spec(name, [user_code().folder])
    return name in sys.modules or here is not None or any(finder.find_spec(name, None) for finder in sys.meta_path)


def _is_run(folder: Path) -> bool:
    """Whether this is the folder of a run or a sweep."""
    return (folder / RECORD).is_file() or (folder / SWEEP / CONFIG).is_file()


def named_runs_dir(given: object) -> Path:
    """The folder of all runs; one that the user gives counts as the user's from now on."""
    if given:
        user_code().runs_dirs.add(str(given))
    return Path(str(given or default_runs_dir()))
