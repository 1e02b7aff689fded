"""Text from outside: names that become paths and shell words, and text that goes to terminals and spreadsheets.

A terminal obeys control characters, a shell and an sbatch script end a line at a newline, and a spreadsheet computes a
cell that begins with `=`. Nothing here imports torch.
"""

import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from lightning_cnn.errors import UserError

# C0, DEL and C1 control characters, separators of lines and paragraphs, what turns the direction of writing
# (Unicode Standard Annex #9), and bytes of a file name that are no UTF-8
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LAYOUT = "\n\t"  # control characters that text is made of
CURSOR_UP = re.compile("(\x1b\\[A)+")  # what tqdm writes, alone, to get back to a bar above
STYLE = re.compile("(\x1b\\[[0-9;?]*[A-Za-z])")  # colors and movements of the cursor
LONGEST_NAME = 100  # characters of the name of an experiment: W&B takes 128, and words such as _sweep are appended
LONGEST_FILE_NAME = 255  # bytes
LONGEST_TAG, LONGEST_PROJECT = 64, 128  # characters that W&B takes
# options that name files or folders
PATHS = {
    *("root", "runs_dir", "default_root_dir", "dirpath", "save_dir", "ckpt_path", "weights", "prices", "returns"),
    *("annotations", "config", "resume", "images", "image", "output", "masks", "draw", "coco", "html", "file", "files"),
    *("run", "runs", "predictions", "logs", "labels"),
}
FORMULA = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")  # the last four are wide forms of the first


def escaped(text: str, keep: str = "") -> str:
    r"""The text with each control character written as in a Python string, such as `\x1b`.

    Args:
        text: Any text.
        keep: Control characters that stay.
    """
    return CONTROL.sub(lambda found: found[0] if found[0] in keep else _written(found[0]), text)


def check_text(what: str, value: object) -> None:
    """Refuses control characters in a name or path.

    Args:
        what: What it is, such as `runs_dir`.
        value: Its value. Of a list each element is checked; what is neither text nor a path is not.

    Raises:
        UserError: If there is one.
    """
    if isinstance(value, list | tuple):
        for element in value:
            check_text(what, element)
    elif isinstance(value, str | Path) and (found := CONTROL.search(str(value))):
        raise UserError(
            f"{what} '{escaped(str(value))}': contains the control character {_written(found[0])}; remove it"
        )


def check_texts(values: Mapping[str, object], skip: Sequence[str] = ()) -> None:
    """Refuses control characters in the values of options.

    Args:
        values: Each option, without dashes, and its value.
        skip: Options that may hold any text.

    Raises:
        UserError: If there is one.
    """
    for name, value in values.items():
        if name not in skip:
            check_text(f"`{name}`", value)


def check_experiment(name: str, given: str) -> str:
    """Refuses the name of an experiment that is no good name of a folder.

    Args:
        name: The name.
        given: What it comes from, such as `experiment`.

    Returns:
        The name.

    Raises:
        UserError: If it is empty or too long, begins with a dot or a dash, or holds a separator or a control character.
    """
    check_text(given, name)
    if not name or name != name.strip() or name.startswith((".", "-")) or re.search(r"[/\\]", name):
        raise UserError(
            f"{given} {name!r}: expected a folder name that is not empty, does not start with a dot, dash or space, "
            "and has no / or \\; name the experiment with `experiment` NAME"
        )
    if len(name) > LONGEST_NAME or len(name.encode()) > 2 * LONGEST_NAME:
        raise UserError(
            f"{given} '{name[:20]}...': {len(name)} characters are too long, at most {LONGEST_NAME}; name the "
            "experiment with `experiment` NAME"
        )
    return name


def check_tags(tags: Sequence[str], project: str) -> None:
    """Refuses tags and the name of a project that W&B refuses.

    Args:
        tags: The tags of a run.
        project: The project.

    Raises:
        UserError: If a tag is empty or too long, or the name is empty, too long, or has one of W&B's own characters.
    """
    for tag in tags:
        if not 0 < len(tag) <= LONGEST_TAG:
            raise UserError(f"`tags` {tag[:20]!r}: {len(tag)} characters, but W&B takes 1 to {LONGEST_TAG}")
    found = re.search(r"[/\\#?%:]", project)
    if found or not 0 < len(project) <= LONGEST_PROJECT:
        why = f"{found[0]!r} is not allowed" if found else f"{len(project)} characters"
        raise UserError(f"`project` {project[:20]!r}: {why}; W&B takes 1 to {LONGEST_PROJECT} without / \\ # ? % :")


def with_paths(values: Any, name: str = "") -> Any:
    """Values in which each option that names files begins with the home directory for `~` and has no `$VARIABLE`.

    A shell replaces these only where they stand alone, and nobody in a file. What is there as it is written stays.

    Args:
        values: Fields, also nested ones, or the value of an option.
        name: The option; in Python's way of writing, without dashes.

    Raises:
        UserError: If a name is longer than any file system takes.
    """
    if isinstance(values, Mapping):
        return {key: with_paths(value, str(key)) for key, value in values.items()}
    if isinstance(values, list):
        return [with_paths(value, name) for value in values]
    is_path = isinstance(values, Path) or (isinstance(values, str) and name.rpartition(".")[2].strip("-+") in PATHS)
    if is_path and max(len(part.encode(errors="replace")) for part in str(values).split("/")) > LONGEST_FILE_NAME:
        what = "the configuration file" if name == "config" else f"`{name}`"
        raise UserError(f"{what} {str(values)[:40]!r}...: a file name is too long, at most {LONGEST_FILE_NAME} bytes")
    if not is_path or not ({*str(values)} & {"~", "$"}) or "\0" in str(values) or os.path.lexists(values):
        return values
    return type(values)(os.path.expanduser(os.path.expandvars(values)))


def folder_from(variable: str) -> Path | None:
    """The folder that an environment variable names, None where it names none.

    Args:
        variable: Its name.

    Raises:
        UserError: If it holds a control character.
    """
    folder = os.environ.get(variable)
    check_text(f"${variable}", folder)
    return Path(folder) if folder else None


def distinct(names: Iterable[str]) -> list[str]:
    """Names of which those that have come before are numbered: `a`, `a_2`, ...

    Args:
        names: The names, in their order.
    """
    found: dict[str, None] = {}
    for name in names:
        chosen, number = name, 1
        while chosen in found:
            number += 1
            chosen = f"{name}_{number}"
        found[chosen] = None
    return [*found]


def as_cell(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet takes for a formula; numbers stay as they are.

    Text that begins like a formula gets an apostrophe in front, as OWASP advises ("CSV Injection").

    Args:
        value: What the cell is to hold.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value) else value


def csv_text(rows: Iterable[Iterable[Any]], end: str = "\r\n") -> str:
    """Rows as CSV, no cell of which a spreadsheet takes for a formula.

    Args:
        rows: The cells. A header is simply the first row.
        end: The end of each line.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(map(as_cell, row) for row in rows)
    return text.getvalue()


class PlainStream:
    """A stream to which control characters are written escaped, but newlines and tabs.

    Args:
        stream: The stream; None where it is closed.
        must_arrive: Whether it is an error that nobody reads it.

    Attributes:
        styled: Whether colors and movements of the cursor pass, for progress bars that need them.
    """

    def __init__(self, stream: TextIO | None, must_arrive: bool = True) -> None:
        self.stream = _nothing() if stream is None else stream
        self.must_arrive = must_arrive
        self.styled = False

    def write(self, text: str) -> int:
        """Writes text."""
        if CONTROL.search(text) and not CURSOR_UP.fullmatch(text):
            begin = "\r" if text.startswith("\r") else ""  # a progress bar begins its line anew
            parts = STYLE.split(text[len(begin) :]) if self.styled else [text[len(begin) :]]
            text = begin + "".join(part if place % 2 else escaped(part, LAYOUT) for place, part in enumerate(parts))
        try:
            return self.stream.write(text)
        except UnicodeEncodeError:  # the locale is not that of UTF-8
            code = self.stream.encoding
            return self.stream.write(text.encode(code, "backslashreplace").decode(code))
        except BrokenPipeError:
            if self.must_arrive:
                raise
            self.stream = _nothing()  # who read the messages has gone; the work goes on
            return len(text)

    def flush(self) -> None:
        """Hands on what was written."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            if self.must_arrive:
                raise

    def writelines(self, lines: Sequence[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Everything else is that of the stream."""
        return getattr(self.stream, name)


def _nothing() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@contextmanager
def plain_output() -> Iterator[None]:
    """What this process prints holds no control characters but newlines and tabs."""
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, PlainStream):  # a verb that calls another
        yield
        return
    sys.stdout, sys.stderr = PlainStream(before[0]), PlainStream(before[1], must_arrive=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def allow_style() -> None:
    """Lets colors and movements of the cursor pass, for a progress bar that needs them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, PlainStream):
            stream.styled = True


def _written(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
