"""Tables as blocks of columns: Parquet, Feather, and the base of all formats."""

import ast
import csv
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, feather, parquet

from lightning_cnn.dates import is_text
from lightning_cnn.errors import UserError

Floats = NDArray[np.float64]
Block = tuple[int, dict[int, Any]]  # number of the first row, and the columns by their places

CELLS = 4_000_000  # values of a Parquet file, held at once
FLOAT = pa.float64()
THREADED = 1000  # rows from which several threads read the columns of a wide file faster
SAMPLE = 1000  # rows by which the form of a column is decided
NULLS = ("", "#N/A", "N/A", "NA", "n/a", "NULL", "null", "None", "NaN", "nan", "-NaN", "-nan", "<NA>", "-", "--", ".")
NUMBER = r"^[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[iI]nf(inity)?)$"


class UnreadableCellError(Exception):
    """A cell of a column of numbers is none: the file is to be read anew, cell by cell."""


class TableFile:
    """A table whose columns are known, and which is read block by block.

    Args:
        path: The file.
        decimal: The decimal separator of its texts; None where it is to be recognized.

    Attributes:
        format: What it is called.
        names: The names of the columns; of two levels the first and the second.
        levels: Both names of each column, where the columns have two.
        types: The types of the columns.
        freqs: Frequencies of pandas' periods by the places of their columns.
        lenient: Whether cells that are no numbers count as missing; else the first one raises `UnreadableCellError`.
        unreadable: How many such cells there were, by the places of their columns.
        skipped_rows: Rows with another number of cells than the header.
        nulls: Further texts that mean that a number is missing.

    Raises:
        UserError: If it can't be read.
    """

    format: ClassVar[str] = ""
    lenient = False

    def __init__(self, path: Path, decimal: str | None = None) -> None:
        self.path, self.wanted_decimal = path, decimal
        self.decimal = decimal or "."
        self.names: list[str] = []
        self.levels: list[tuple[str, str]] | None = None
        self.types: list[Any] = []
        self.freqs: dict[int, str] = {}
        self.unreadable: Counter[int] = Counter()
        self.skipped_rows = 0
        self.nulls: tuple[str, ...] = ()
        with self.readable():
            self.open()

    def open(self) -> None:
        """Finds names and types."""
        raise NotImplementedError

    def head(self, place: int) -> Any:
        """The first values of a column."""
        raise NotImplementedError

    def whole(self, place: int) -> Any:
        """All values of a column."""
        raise NotImplementedError

    def blocks(self, places: Sequence[int], wide: bool, texts: Collection[int] = ()) -> Iterator[Block]:
        """The columns, some rows or some columns at a time.

        Args:
            places: Their places; the first is in every block, those of numbers hold numbers.
            wide: Whether the others are numbers, and may come apart.
            texts: The places of further texts.
        """
        raise NotImplementedError

    def is_text(self, place: int) -> bool:
        """Whether a column holds texts that are no numbers, as far as its beginning tells."""
        if self.types[place] == FLOAT:
            return False
        if not is_text(self.types[place]):
            return bool(pa.types.is_boolean(self.types[place]) or pa.types.is_nested(self.types[place]))
        values = self.head(place)
        numbers, bad = to_numbers(values, self.decimal, self.nulls)
        return bad > 0 and numbers.null_count == len(numbers)

    def floats(self, place: int, column: Any) -> Floats:
        """A column of a block as float64, NaN where nothing is."""
        if column.type == FLOAT:
            return np.asarray(column)
        if is_text(column.type):
            column, bad = to_numbers(column, self.decimal, self.nulls)
            self.unreadable[place] += bad
        return np.asarray(column.cast(pa.float64()))

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turns errors of a library into one line."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, csv.Error, MemoryError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{self.path} can't be read as {self.format} ({reason}): give another file") from None

    def name_columns(self, names: Sequence[Any], metadata: Any = None) -> None:
        """Takes the names of the columns, which pandas writes as tuples where they have two levels."""
        parsed = [_levels(name) for name in names] if any(str(name).startswith("(") for name in names) else []
        if parsed and sum(part is not None for part in parsed) >= max(1, len(names) - 2):
            self.levels = [part or (str(name), "") for part, name in zip(parsed, names, strict=True)]
            self.names = [" ".join(part).strip() for part in self.levels]
        else:
            self.names = [str(name).strip() for name in names]


def _levels(name: Any) -> tuple[str, str] | None:
    try:
        parts = ast.literal_eval(name) if isinstance(name, str) else name
    except (ValueError, SyntaxError):
        return None
    return (str(parts[0]), str(parts[1])) if isinstance(parts, tuple) and len(parts) == 2 else None


class ParquetTable(TableFile):
    """A Parquet file."""

    format = "Parquet"

    def open(self) -> None:
        """Finds names and types."""
        self._file = parquet.ParquetFile(self.path)
        schema = self._file.schema_arrow
        self._given: list[str] = list(schema.names)
        self.types = list(schema.types)
        self.name_columns(self._given)
        self.freqs = _periods(schema)

    def head(self, place: int) -> Any:
        """The first values of a column."""
        name = self._given[place]
        batches = self._file.iter_batches(batch_size=SAMPLE, columns=[name])
        batch = next(batches, None)
        return pa.array([], self.types[place]) if batch is None else batch.column(batch.schema.names.index(name))

    def whole(self, place: int) -> Any:
        """All values of a column."""
        name = self._given[place]
        table = self._file.read(columns=[name])
        return table.column(table.schema.names.index(name))

    def blocks(self, places: Sequence[int], wide: bool, texts: Collection[int] = ()) -> Iterator[Block]:
        """The columns: wide, some at a time, long, some rows at a time."""
        with self.readable():
            if not wide:
                names = [self._given[place] for place in places]
                coded = [self._given[place] for place in places[1:] if is_text(self.types[place])]
                source = parquet.ParquetFile(self.path, read_dictionary=coded)
                first = 0
                for batch in source.iter_batches(batch_size=CELLS // 4, columns=names):
                    found = batch.schema.names
                    yield first, {place: batch.column(found.index(self._given[place])) for place in places}
                    first += len(batch)
                return
            always, rest = self.whole(places[0]), list(places[1:])
            width = max(1, CELLS // max(1, len(always)))
            for start in range(0, len(rest), width):
                group = rest[start : start + width]
                # reading `A` also gives `A.B`, and one name may stand twice: columns are taken in their order
                wanted = list(dict.fromkeys(self._given[place] for place in group))
                table = self._file.read(columns=wanted, use_threads=len(always) > THREADED)
                by_name: dict[str, list[int]] = {}
                for at, given_name in enumerate(table.schema.names):
                    by_name.setdefault(given_name, []).append(at)
                places_of = {name: [n for n, given in enumerate(self._given) if given == name] for name in self._twice}
                columns = {}
                for place in group:
                    name = self._given[place]
                    number = places_of[name].index(place) if name in places_of else 0
                    columns[place] = table.column(by_name[name][number])
                yield 0, {places[0]: always, **columns}

    @property
    def _twice(self) -> list[str]:
        return [name for name, count in Counter(self._given).items() if count > 1]


class ArrowTable(TableFile):
    """A table in memory, such as that of a Feather file."""

    format = "Feather"

    def open(self) -> None:
        """Reads all of it."""
        self.take(feather.read_table(self.path))

    def take(self, table: Any) -> None:
        """Takes a table of pyarrow."""
        self._table = table
        self.types = list(table.schema.types)
        self.name_columns(table.schema.names)
        self.freqs = _periods(table.schema)

    def head(self, place: int) -> Any:
        """The first values of a column."""
        return self._table.column(place).slice(0, SAMPLE)

    def whole(self, place: int) -> Any:
        """All values of a column."""
        return self._table.column(place)

    def blocks(self, places: Sequence[int], wide: bool, texts: Collection[int] = ()) -> Iterator[Block]:
        """All columns at once."""
        yield 0, {place: self._table.column(place) for place in places}


def _periods(schema: Any) -> dict[int, str]:
    """Frequencies of pandas' periods, which without pandas' own types are plain numbers."""
    found = {}
    for place, field in enumerate(schema):
        meta = field.metadata or {}
        if meta.get(b"ARROW:extension:name") == b"pandas.period":
            found[place] = ast.literal_eval(meta[b"ARROW:extension:metadata"].decode())["freq"]
        elif (freq := getattr(field.type, "freq", None)) is not None:
            found[place] = freq
    return found


def to_numbers(column: Any, decimal: str = ".", nulls: Sequence[str] = ()) -> tuple[Any, int]:
    """Texts as numbers.

    Args:
        column: Texts, or coded ones.
        decimal: The decimal separator; the other one may separate thousands.
        nulls: Further texts for a missing number.

    Returns:
        float64, null where no number is, and how many texts were neither a number nor one for a missing number.
    """
    texts = compute.utf8_trim_whitespace(column.cast(pa.string()))
    other = "," if decimal == "." else r"\."
    grouped = rf"^([-+]?\d{{1,3}})({other}\d{{3}})+(\D|$)"
    groups = compute.match_substring_regex(texts, grouped)
    texts = compute.if_else(groups, compute.replace_substring_regex(texts, other, ""), texts)
    if decimal == ",":
        texts = compute.replace_substring(texts, ",", ".")
    missing = compute.fill_null(compute.is_in(texts, pa.array([*NULLS, *nulls])), True)
    is_number = compute.fill_null(compute.match_substring_regex(texts, NUMBER), False)
    numbers = compute.if_else(is_number, texts, pa.scalar(None, pa.string())).cast(pa.float64())
    bad = compute.sum(compute.invert(compute.or_(missing, is_number))).as_py() or 0
    return numbers, int(bad)
