"""The table that lists the images of a data set: a CSV file with a row per image."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from lightning_cnn.datamodules.images.folders import PARTS, part_named
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text, escaped
from lightning_cnn.regular_files import read_regular

FILE, PART = "file", ("part", "split")
SEPARATORS = ",;\t"  # a spreadsheet of a country with decimal commas writes semicolons
Label = TypeVar("Label")


@dataclass(frozen=True)
class Row(Generic[Label]):
    """An image of a table.

    Attributes:
        path: Its file.
        label: What the table says of it.
        group: The group that it belongs to; empty without groups.
    """

    path: str
    label: Label
    group: str


@dataclass(frozen=True)
class Table:
    """The cells of a table.

    Attributes:
        path: The file.
        names: Names of the columns.
        rows: The cells of each row, by name.
        part: Name of the column of the parts; empty without one.
    """

    path: Path
    names: list[str]
    rows: list[dict[str, str]]
    part: str

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Reads a CSV file, in UTF-8, separated by commas, semicolons or tabs.

        Args:
            path: The file.

        Raises:
            UserError: If it can't be read, has no column `file`, or a row has too few or too many cells.
        """
        try:
            text = read_regular(path)
            separator = max(SEPARATORS, key=text.partition("\n")[0].count)
            first, *lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        except (OSError, ValueError, csv.Error):  # none, no text, no line, or no CSV
            raise UserError(f"{path} can't be read as a CSV: name the table with `data.labels`") from None
        names = [name.strip() for name in first]
        if FILE not in names or len({*names}) < len(names):
            raise UserError(f"{path}: the first line must have `{FILE}` and the other columns, each once")
        for name in names:
            check_text(f"{path}, a column", name)
        rows = []
        for number, line in enumerate(lines, start=2):
            if line and len(line) != len(names):
                raise UserError(f"{path}, line {number}: {len(line)} cells, but the first line has {len(names)}")
            rows.append(dict(zip(names, map(str.strip, line), strict=False)))
        return cls(path, names, rows, next((name for name in PART if name in names), ""))

    def others(self, groups: str | None) -> list[str]:
        """The columns beside those of the file, the part and the groups, and row numbers without a name.

        Args:
            groups: Name of the column of the groups, if any.

        Raises:
            UserError: If there is no such column.
        """
        if groups is not None and (groups not in self.names or groups in (FILE, self.part)):
            raise UserError(f"`data.groups` {groups}: {self.path} has no such column beside `{FILE}`; remove it")
        return [name for name in self.names if name not in ("", FILE, self.part, groups)]

    def images(
        self, folder: Path, columns: Sequence[str], label: Callable[[list[str]], Label | None], must: str, groups: str
    ) -> dict[str, list[Row[Label]]]:
        """The images of each part.

        Args:
            folder: The folder that the paths of the files begin at.
            columns: The columns that say the label.
            label: Makes it of their cells; None where they can't be understood.
            must: What they must hold.
            groups: Name of the column of the groups; empty for none.

        Raises:
            UserError: If a row has no part or no label, or its file is missing or is there twice.
        """
        found: dict[str, list[Row[Label]]] = {}
        seen: dict[str, int] = {}
        for number, row in enumerate(self.rows, start=2):
            if not row:  # an empty line
                continue
            where = f"{self.path}, line {number}"
            part, file = part_named(row[self.part]) if self.part else "train", PurePosixPath(row[FILE])
            own = label([row[column] for column in columns])
            if part is None or own is None:
                parts = f"a part ({', '.join(PARTS)})"
                raise UserError(f"{where}: it must have {parts} and {must}")
            if file.is_absolute() or ".." in file.parts or not (folder / file).is_file():
                raise UserError(f"{where}: there is no file {escaped(str(file))!r} in {folder}")
            if first := seen.get(str(file)):
                raise UserError(f"{where}: {escaped(str(file))!r} is in line {first}, too: remove one of the two")
            seen[str(file)] = number
            found.setdefault(part, []).append(Row(str(folder / file), own, row[groups] if groups else ""))
        return found


def shared_groups(rows: Collection[Collection[Row[Label]]]) -> list[str]:
    """The groups that lie in several parts, sorted.

    Args:
        rows: Those of each part.
    """
    parts = Counter(group for part in rows for group in {row.group for row in part})
    return sorted(group for group, count in parts.items() if count > 1)
