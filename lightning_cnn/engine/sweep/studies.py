"""Makes studies, and finds them."""

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import yaml

from lightning_cnn.config.trust import named_runs_dir, note_origin
from lightning_cnn.engine.sweep.study import FOLDER, JOURNAL, STUDY, TRIAL, Study, storage
from lightning_cnn.errors import StorageError, UserError, did_you_mean
from lightning_cnn.plain_text import check_text
from lightning_cnn.resume.files import TEMPORARY, make_folder, replace_text, storing
from lightning_cnn.tracking.record import CONFIG


def find_study(name: str, given: object = None) -> Study:
    """The study that a user means by the folder or the name of an experiment; notes whose it is.

    Args:
        name: The name.
        given: The folder of all runs, if one is given; it counts as the user's.

    Raises:
        UserError: If there is none, or the name holds a control character.
    """
    check_text("SWEEP", name)
    runs_dir = named_runs_dir(given)
    path = Path(name)
    within = path.parent if path.name == FOLDER else path  # named by what lies in it
    found = {home.resolve(): home for home in (runs_dir / name, within) if (home / FOLDER / CONFIG).is_file()}
    if len(found) > 1:
        raise UserError(f"{name!r} could mean {' or '.join(map(str, found))}: name one of them")
    for home in found.values():
        note_origin(home, is_config=True)
        return Study(home)
    known = [path.parents[1].name for path in runs_dir.glob(f"*/{FOLDER}/{CONFIG}")]
    hint = did_you_mean(Path(name).name, known) or (f"; there are {', '.join(known)}" if known else "")
    raise UserError(f"no sweep {name!r} under {runs_dir}/{hint}")


def create_study(home: Path, config: Mapping[str, Any], trial: Mapping[str, Any]) -> bool:
    """Makes a study, unless there is one.

    Args:
        home: Folder of the experiment.
        config: The whole configuration of the sweep.
        trial: What all trials share: a configuration of `fit`.

    Returns:
        Whether it was made here; False where there was one already, or another process has just been faster.

    Raises:
        UserError: If its folder holds other things.
        StorageError: If it can't be written.
    """
    make_folder(home, "choose another place with `runs_dir`")
    place = home / FOLDER
    if place.is_dir() and not (place / CONFIG).is_file() and (strange := next(place.iterdir(), None)):
        raise UserError(f"{place} contains {strange.name}, which is not part of a sweep: use another `experiment` NAME")
    folder = home / f"{FOLDER}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        make_files(folder, config, trial)
        with storing(place):
            folder.rename(place)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            home.rmdir()  # only if nothing is in it
        if isinstance(error, OSError | StorageError) and (place / CONFIG).is_file():
            return False
        raise
    return True


def make_files(folder: Path, config: Mapping[str, Any], trial: Mapping[str, Any]) -> None:
    """Writes the files of a study that nobody knows yet."""
    make_folder(folder)
    with storing(folder / JOURNAL):
        (folder / JOURNAL).touch()
    least = config["checkpoint"]["mode"] == "min"
    optuna.create_study(study_name=STUDY, storage=storage(folder), direction="minimize" if least else "maximize")
    replace_text(folder / TRIAL, yaml.safe_dump(dict(trial), sort_keys=False))
    replace_text(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
