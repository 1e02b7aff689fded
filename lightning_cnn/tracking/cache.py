"""A cache of what run folders hold, so that thousands are listed at once; without it nothing is lost but time.

It is an SQLite file of the user's own, `$XDG_CACHE_HOME/lightning_cnn/runs.sqlite`. Imports no torch.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lightning_cnn.user_folders import is_private, user_folder

MANY = 200  # fewer folders are read as fast
MOST = 200_000  # entries of the file, which is then begun anew
WAIT = 0.5  # seconds, for another process
FORMAT = 1  # of the values; others are not read
TABLE = "CREATE TABLE IF NOT EXISTS found (kind TEXT, folder TEXT, state TEXT, value TEXT, PRIMARY KEY (kind, folder))"


def remembered(
    kind: str, folders: Sequence[Path], names: Sequence[str], read: Callable[[Path], tuple[Any, bool]]
) -> list[Any]:
    """What is read from each of some folders, from the cache where nothing has changed since.

    Args:
        kind: Name of what is read.
        folders: The folders.
        names: Files and folders in each, by whose size, time and inode a change is noticed.
        read: Reads it from a folder: plain data as JSON has it, and whether it may be remembered.
    """
    if len(folders) < MANY:
        return [read(folder)[0] for folder in folders]
    kind = f"{kind} {FORMAT}"
    known = _load(kind)
    found, changed = [], []
    for folder in folders:
        place = os.path.abspath(folder)
        state = " ".join(_state(f"{place}/{name}") for name in names)
        before, text = known.get(place, ("", ""))
        if before == state:
            found.append(json.loads(text))
            continue
        value, lasts = read(folder)
        found.append(value)
        if lasts:
            changed.append((kind, place, state, json.dumps(value)))
    if changed:
        _store(changed)
    return found


def _state(path: str) -> str:
    try:
        facts = os.stat(path)
    except OSError:
        return "-"
    return f"{facts.st_ino} {facts.st_mtime_ns} {facts.st_size}"


def _path() -> Path:
    return user_folder("XDG_CACHE_HOME", ".cache") / "runs.sqlite"


def _load(kind: str) -> dict[str, tuple[str, str]]:
    """The states and texts by folder; none where somebody else may have written the file, or it is damaged."""
    with suppress(OSError, RuntimeError, sqlite3.Error):
        path = _path()
        if all(is_private(os.lstat(each)) for each in (path, path.parent)):
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", WAIT, uri=True)) as connection:
                rows = connection.execute("SELECT folder, state, value FROM found WHERE kind = ?", (kind,))
                return {folder: (state, value) for folder, state, value in rows}
    return {}


def _store(rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Adds entries; where the file can't be written, nothing happens, and a damaged one is begun anew."""
    with suppress(OSError, RuntimeError, sqlite3.Error):
        path = _path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(os.lstat(path.parent)):
            return
        if path.is_symlink() or (path.exists() and not (is_private(os.lstat(path)) and _is_sound(path))):
            path.unlink()
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        with closing(sqlite3.connect(path, WAIT)) as connection, connection:
            connection.execute(TABLE)
            (count,) = connection.execute("SELECT COUNT(*) FROM found").fetchone()
            if count + len(rows) > MOST:
                connection.execute("DELETE FROM found")
            connection.executemany("INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?)", rows)


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", WAIT, uri=True)) as connection:
            connection.execute("SELECT kind, folder, state, value FROM found LIMIT 1").fetchall()
    except sqlite3.DatabaseError as error:
        return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
    return True
