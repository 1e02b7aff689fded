"""YAML from outside: plain data of bounded size, in which no key is given twice. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_cnn.regular_files import read_regular, read_stream

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST = 100  # levels; the C loader ends the process at 100,000
LARGEST = 100_000  # values, those of aliases counted at each place
LONGEST = 10_000_000  # bytes of a file
MERGE = "<<"  # the one key that may occur twice


class RefusedYAMLError(yaml.MarkedYAMLError):
    """YAML, but not what is read here: too deep or too large, or a key is given twice."""


def load_yaml(text: str, load: Callable[[str], Any] | None = None) -> Any:
    """The content of a text in YAML.

    Args:
        text: The text.
        load: Makes plain data of a text; default PyYAML.

    Raises:
        yaml.YAMLError: If it is not YAML, too large, or a value is not what its tag says, such as the date 2001-13-45.
    """
    _check_size(text)
    try:
        return yaml.load(text, LOADER) if load is None else load(text)
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # of `!!int abc`, and `!!timestamp x`
        raise yaml.YAMLError(str(error)) from None


def load_yaml_file(path: Path, wait: float | None = None) -> Any:
    """The content of a YAML file in UTF-8.

    Args:
        path: The file.
        wait: Seconds to wait for a pipe, such as that of `<(command)`; None takes regular files only.

    Raises:
        OSError: If it can't be read.
        yaml.YAMLError: As of `load_yaml`, and if it is not UTF-8.
    """
    try:
        text = read_regular(path, most=LONGEST) if wait is None else read_stream(path, wait, LONGEST)
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(f"byte {error.start} is not UTF-8") from None
    return load_yaml(text.removeprefix("\ufeff"))


def problem(error: yaml.YAMLError) -> str:
    """What is wrong, in one line, with the number of the line where it is known."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or str(error) or "damaged"
    what = said if isinstance(error, RefusedYAMLError) else f"is not YAML ({said.splitlines()[0][:100]})"
    return f", line {mark.line + 1} {what}" if mark else f" {what}"


def _check_size(text: str) -> None:
    """Refuses what is too deep or too large, before anything is made of it.

    Raises:
        yaml.YAMLError: If it is, or it is not YAML.
    """
    sizes: dict[str | None, int] = {}  # of what an anchor stands for
    around: list[_Open] = []
    count = 0
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            ended = around.pop()
            sizes[ended.anchor] = count - ended.before
        if not isinstance(event, yaml.NodeEvent):
            continue
        if around and (twice := around[-1].repeated(event)) is not None:
            raise _refused(event, f"gives {twice[:40]!r} twice: merge both")
        if isinstance(event, yaml.AliasEvent):
            if any(each.anchor == event.anchor for each in around):
                raise _refused(event, "contains a value that contains itself")
            count += sizes.get(event.anchor, 0)
        else:
            if isinstance(event, yaml.CollectionStartEvent):
                around.append(_Open(event.anchor, count, isinstance(event, yaml.MappingStartEvent)))
            else:
                sizes[event.anchor] = 1
            count += 1
        if count > LARGEST:
            raise _refused(event, f"holds over {LARGEST:,} values")
        if len(around) > DEEPEST:
            raise _refused(event, f"is nested more than {DEEPEST} levels deep")


@dataclass
class _Open:
    """A list or mapping whose end has not been read."""

    anchor: str | None
    before: int  # values before it
    is_mapping: bool
    keys: set[str] = field(default_factory=set)
    is_key: bool = True  # whether the next value in it is one

    def repeated(self, event: yaml.NodeEvent) -> str | None:
        """Takes the next value in it; returns the key that it repeats, if it does."""
        is_key = self.is_mapping and self.is_key
        self.is_key = not self.is_key
        if not is_key or not isinstance(event, yaml.ScalarEvent):
            return None
        if event.value in self.keys and event.value != MERGE:
            return str(event.value)
        self.keys.add(event.value)
        return None


def _refused(event: Any, what: str) -> RefusedYAMLError:
    return RefusedYAMLError(problem=what, problem_mark=event.start_mark)
