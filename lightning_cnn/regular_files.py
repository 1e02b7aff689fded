"""Finds and opens regular files: nothing hangs at a FIFO, and no link leads around in circles. Imports no torch."""

import errno
import os
import select
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from lightning_cnn.plain_text import escaped

LONGEST_ENDING = 12  # characters of an ending that are said
NOTED = 3  # names of what was skipped, and endings, that are said
MAC_FOLDER = "__MACOSX"  # in archives made on a Mac: a second file for each file
OF_SYSTEM = ("thumbs.db", "desktop.ini")  # what Windows writes into folders that it shows
ABOVE, TWICE, HIDDEN = "a link to a folder above it", "a link to a folder that was searched already", "hidden"

Place = tuple[int, int]  # device and inode


@dataclass
class Found:
    """What `find_files` has found.

    Attributes:
        folder: Where it has searched.
        files: The files, in no order.
        skipped: What was not taken, each with its reason.
        ignored: How many files had another ending, by that.
    """

    folder: Path
    files: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def note(self) -> str:
        """What was skipped and ignored, in one line; empty where nothing was."""
        notes = []
        if self.skipped:
            shown = self.skipped[:NOTED]
            named = [f"{escaped(os.path.relpath(path, self.folder))} ({reason})" for path, reason in shown]
            more = ", ..." if len(self.skipped) > NOTED else ""
            notes.append(f"skipped {len(self.skipped):,}: {', '.join(named)}{more}")
        if text := self.ignored_files():
            notes.append(text)
        return f"{self.folder}: {'; '.join(notes)}" if notes else ""

    def ignored_files(self) -> str:
        """How many files were ignored, by their ending; empty where none was."""
        if not (count := self.ignored.total()):
            return ""
        most = [f"{number:,} {escaped(ending)}" for ending, number in self.ignored.most_common(NOTED)]
        more = ", ..." if len(self.ignored) > NOTED else ""
        return f"{count:,} {'file' if count == 1 else 'files'} ignored: {', '.join(most)}{more}"


def find_files(folder: Path, suffixes: Collection[str]) -> Found:
    """The regular files of some kinds in a folder, to any depth.

    A link to a folder is followed where that does not hold the link and was not searched before; folders that are no
    links come first. A link to a file is taken. Hidden files and folders, those of `__MACOSX`, and what is no regular
    file are skipped.

    Args:
        folder: Where to search; may be a link itself.
        suffixes: Endings of the names in lower case, such as `.png`. Files with others are ignored and counted, but
            for hidden ones and those of Windows.
    """
    found, endings = Found(folder), tuple(suffixes)
    seen: set[Place] = set()
    folders: list[tuple[str, set[Place]]] = [(str(folder), _above(folder))]
    links: list[tuple[str, set[Place]]] = []
    while folders or links:
        path, above = (folders or links).pop(0)
        try:
            place = _place(path)
            if place in above or place in seen:
                found.skipped.append((path, ABOVE if place in above else TWICE))
                continue
            seen.add(place)
            entries = _sorted_entries(path)
        except OSError as error:
            found.skipped.append((path, str(error.strerror)))
            continue
        for entry in entries:
            is_wanted, is_hidden = entry.name.lower().endswith(endings), _is_hidden(entry.name)
            if is_wanted and not is_hidden and entry.is_file(follow_symlinks=False):
                found.files.append(entry.path)  # as nearly all: a million are found within seconds
                continue
            is_folder = _is(entry.is_dir)
            if not (is_folder or is_wanted):
                if not is_hidden and entry.name.lower() not in OF_SYSTEM:
                    found.ignored[Path(entry.name).suffix.lower()[:LONGEST_ENDING] or "without an ending"] += 1
            elif is_hidden:
                found.skipped.append((entry.path, HIDDEN))
            elif is_folder:
                (links if entry.is_symlink() else folders).append((entry.path, above | {place}))
            elif _is(entry.is_file):
                found.files.append(entry.path)
            else:
                is_there = os.path.exists(entry.path)
                found.skipped.append((entry.path, "no regular file" if is_there else "a broken link"))
    return found


def find_folders(folder: Path) -> list[str]:
    """Names of the folders directly in a folder, sorted; of links only those that `find_files` follows.

    Args:
        folder: Where to search.

    Raises:
        OSError: If it can't be read.
    """
    entries = [entry for entry in _sorted_entries(folder) if _is(entry.is_dir) and not _is_hidden(entry.name)]
    seen = {_place(folder)} | _above(folder)
    names = []
    for entry in sorted(entries, key=lambda entry: entry.is_symlink()):
        if (place := _place(entry.path)) not in seen:
            seen.add(place)
            names.append(entry.name)
    return sorted(names)


def read_regular(path: Path, errors: str = "strict", most: int | None = None) -> str:
    """The text of a file; a FIFO is not waited for.

    Args:
        path: The file, in UTF-8, with a byte order mark or without.
        errors: What to do about bytes that are no UTF-8, as `open` has it.
        most: Largest size in bytes; None for any.

    Raises:
        OSError: If it can't be opened, is no regular file, or is larger.
        UnicodeDecodeError: If it is not UTF-8.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8", errors=errors) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if most is not None and facts.st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
        return file.read().removeprefix("\ufeff")


def read_stream(path: Path, seconds: float, most: int) -> str:
    """The text of a file or of a pipe, which is read once.

    Args:
        path: The file or pipe, in UTF-8.
        seconds: How long to wait for the end of a pipe.
        most: Largest size in bytes.

    Raises:
        OSError: If it can't be read, is larger, or a pipe has not ended in time.
        UnicodeDecodeError: If it is not UTF-8.
    """
    end, content = time.monotonic() + seconds, b""
    descriptor, poll = os.open(path, os.O_RDONLY | os.O_NONBLOCK), select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        while True:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise OSError(errno.ETIMEDOUT, f"nothing came within {seconds:g} seconds", str(path))
            part = os.read(descriptor, 1 << 16)
            content += part
            if len(content) > most:
                raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
            if not part:
                return content.decode()
    finally:
        os.close(descriptor)


def without_links(path: str, flags: int) -> int:
    """An `opener` for `open` that refuses a file which is a link: to another file it would write."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _sorted_entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=attrgetter("name"))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _above(folder: Path) -> set[Place]:
    """The folders above one."""
    return {_place(parent) for parent in folder.resolve().parents if parent.exists()}


def _place(path: str | Path) -> Place:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == MAC_FOLDER
