"""CSV files with any delimiter, decimal separator, encoding, and compression, and with one or two rows of names."""

import csv as text_csv
import io
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from lightning_cnn.datamodules.returns.table_files import (
    NULLS,
    SAMPLE,
    Block,
    TableFile,
    UnreadableCellError,
)
from lightning_cnn.datamodules.returns.vendors import DATES, FIELDS, OTHERS, TICKERS, plain
from lightning_cnn.errors import UserError

BLOCK_BYTES = 1 << 25  # read at once
HEAD_BYTES = 1 << 20  # of the beginning, at least
HEAD_LINES = 20
LEVELS = ("tickers", "symbols", "price", "prices", "attribute", "attributes", "field", "fields", "variable")
LARGEST_RATIO = 200  # bytes of a table for each one of its packed file
LEAST_LIMIT = 1 << 26  # bytes that are read of any
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
GROUPS = r"\d+|\d{1,3}(,\d{3})+|\d{1,3}(\.\d{3})+"  # 02.01.2014 is no number
IS_NUMBER = re.compile(rf"[-+]?((({GROUPS})([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?|[iI]nf(inity)?)")
# what decides between a decimal comma and a decimal point; 1,020 does not
SURE = {
    ",": re.compile(r"[-+]?((0\d*|\d{4,}|\d{1,3}(\.\d{3})+),\d+|\d*,(\d{1,2}|\d{4,})|[1-9]\d{0,2}(\.\d{3}){2,})"),
    ".": re.compile(r"[-+]?((0\d*|\d{4,}|\d{1,3}(,\d{3})+)\.\d+|\d*\.(\d{1,2}|\d{4,})|[1-9]\d{0,2}(,\d{3}){2,})"),
}
UNSURE = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")


class UnclearNumbersError(UserError):
    """Numbers that can be read in two ways."""


class CsvTable(TableFile):
    """A CSV file. Every cell is a text until its column is known to hold numbers; so `000001` stays what it is."""

    format = "CSV"

    def open(self) -> None:
        """Finds delimiter, encoding, decimal separator and names by the beginning of the file."""
        start = self._start()
        if not start.strip():
            raise ValueError("it is empty")
        self._encoding = _encoding(start)
        text = start.decode(self._encoding, errors="replace").lstrip("\ufeff")
        if "\0" in text:
            raise ValueError("it is no text")
        header = text.partition("\n")[0]
        self._delimiter = max(",;\t|", key=lambda mark: _outside_quotes(header).count(mark))
        complete = text if len(start) < HEAD_BYTES else text.rpartition("\n")[0]
        rows = [*text_csv.reader(io.StringIO(complete), delimiter=self._delimiter)]
        if not rows:
            raise ValueError("it has no header")
        names, self._header_rows, self.levels = _header(rows)
        self.names = [name.strip() for name in names]
        self.types = [pa.string()] * len(names)
        self._head = [row for row in rows[self._header_rows :] if len(row) == len(names)][:SAMPLE]
        self.decimal = self.wanted_decimal or self._decimal()

    def _decimal(self) -> str:
        """What the numbers say: 2014.01 may be a date, and what a volume of 12,300 is matters to nobody."""
        known = [*map(plain, self.names)]
        dates = {place for place, name in enumerate(known) if name in DATES} or {0}
        columns = {
            place: [row[place].strip() for row in self._head[:200]]
            for place in range(min(200, len(known)))
            if place not in dates
        }
        cells = [cell for column in columns.values() for cell in column]
        sure = {mark: sum(bool(numbers.fullmatch(cell)) for cell in cells) for mark, numbers in SURE.items()}
        main = (cell for place, column in columns.items() if known[place] not in OTHERS for cell in column)
        unsure = next((cell for cell in main if UNSURE.fullmatch(cell)), None)
        if unsure is not None and not any(sure.values()):
            raise UnclearNumbersError(
                f"{self.path}: {unsure} can be {unsure.replace(',', '.')} or {unsure.replace(',', '')}, and no other "
                "number decides: set `data.decimal` comma or point"
            )
        return "," if sure[","] > sure["."] else "."

    def head(self, place: int) -> Any:
        """The first values of a column, as texts."""
        return pa.array([row[place] for row in self._head], pa.string())

    def whole(self, place: int) -> Any:
        """All values of a column, as texts."""
        with self.readable():
            chunks = [block[place] for _, block in self._read([place], {place: _coded()})]
        return pa.chunked_array([chunk.cast(pa.string()) for chunk in chunks], pa.string())

    def is_text(self, place: int) -> bool:
        """Whether a column holds texts that are no numbers, as far as its beginning tells."""
        cells = (row[place].strip() for row in self._head)
        known = [*islice((cell for cell in cells if cell not in NULLS and cell not in self.nulls), 20)]
        return bool(known) and not any(IS_NUMBER.fullmatch(cell) for cell in known)

    def blocks(self, places: Sequence[int], wide: bool, texts: Collection[int] = ()) -> Iterator[Block]:
        """The columns, some rows at a time."""
        number = pa.string() if self.lenient else pa.float64()
        coded = {places[0], *texts}
        with self.readable():
            yield from self._read(places, {place: _coded() if place in coded else number for place in places})

    def _read(self, places: Sequence[int], types: dict[int, Any]) -> Iterator[Block]:
        self.skipped_rows = 0
        columns = [str(place) for place in range(len(self.names))]
        with self._stream() as stream:
            reader = self._guarded(
                lambda: csv.open_csv(
                    stream,
                    csv.ReadOptions(
                        block_size=BLOCK_BYTES,
                        skip_rows=self._header_rows,
                        column_names=columns,
                        encoding=self._encoding.removesuffix("-sig"),
                    ),
                    csv.ParseOptions(delimiter=self._delimiter, invalid_row_handler=self._skip),
                    csv.ConvertOptions(
                        column_types={str(place): kind for place, kind in types.items()},
                        include_columns=[str(place) for place in places],
                        null_values=[*NULLS, *self.nulls],
                        decimal_point=self.decimal,
                        strings_can_be_null=False,
                    ),
                )
            )
            first = 0
            while reader is not None:
                batch = self._guarded(lambda: next(reader, None))
                if batch is None:
                    return
                yield first, {place: batch.column(number) for number, place in enumerate(places)}
                first += len(batch)

    def _guarded(self, read: Any) -> Any:
        try:
            return read()
        except pa.ArrowInvalid as error:
            if "conversion error" in str(error) and not self.lenient:
                raise UnreadableCellError(str(error)) from None
            if "Empty CSV file" in str(error):
                return None
            raise

    def _skip(self, row: Any) -> str:
        self.skipped_rows += 1
        return "skip"

    def _stream(self) -> Any:
        """The text, unpacked."""
        suffix = self.path.suffix.lower()
        if suffix == ".zip":
            packed = zipfile.ZipFile(self.path)
            inside = [info for info in packed.infolist() if not info.is_dir() and "__MACOSX" not in info.filename]
            if len(inside) != 1:
                raise ValueError(f"it holds {len(inside)} files: unpack it, and give the folder")
            return pa.PythonFile(_Bounded(packed.open(inside[0]), self.path), mode="r")
        if (compression := COMPRESSIONS.get(suffix)) is None:
            return pa.input_stream(str(self.path), compression=None)
        return pa.PythonFile(_Bounded(pa.input_stream(str(self.path), compression=compression), self.path), mode="r")

    def _start(self) -> bytes:
        """At least 1 MiB, and twenty lines."""
        found = b""
        try:
            with self._stream() as stream:
                while part := stream.read(HEAD_BYTES):
                    found += part
                    if found.count(b"\n") > HEAD_LINES or len(found) > BLOCK_BYTES:
                        break
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ValueError(str(error)) from None
        return found


class _Bounded(io.RawIOBase):
    """What a packed file holds, as long as that is not absurdly more than the file: tables shrink to a tenth or so."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._left, self._most = stream, 0, 0
        self._left = self._most = max(LEAST_LIMIT, LARGEST_RATIO * path.stat().st_size)

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            ValueError: If it has become too much.
        """
        part: bytes = self._stream.read(size if size >= 0 else None)
        self._left -= len(part)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {self._most:,} bytes, {LARGEST_RATIO} times its size")
        return part

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()
        super().close()


def _coded() -> Any:
    return pa.dictionary(pa.int32(), pa.string())


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _encoding(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        start[: start.rfind(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig" if start[:3] == b"\xef\xbb\xbf" else "utf-8"


def _header(rows: list[list[str]]) -> tuple[list[str], int, list[tuple[str, str]] | None]:
    """Names, how many rows they take, and both levels where there are two (as yfinance's tables have them)."""
    above = [cell.strip() for cell in rows[0]]
    below = [cell.strip() for cell in rows[1]] if len(rows) > 2 else []
    if len(below) != len(above) or _all_fields(above) == _all_fields(below):
        return above, 1, None
    if not all(cell and cell not in NULLS for cell in (*above[1:], *below[1:])):
        return above, 1, None
    third = [cell.strip() for cell in rows[2]]
    named = not any(third[1:]) and plain(third[0]) in DATES and third[0] != ""
    if not named and plain(below[0]) not in (*DATES, *TICKERS, *LEVELS):  # below the name of a column is a value
        return above, 1, None
    date = third[0] if named else next((name for name in (below[0], above[0]) if plain(name) in DATES[:-1]), "Date")
    pairs = [(date, ""), *zip(above[1:], below[1:], strict=True)]
    return [" ".join(pair).strip() for pair in pairs], 3 if named else 2, pairs


def _all_fields(row: list[str]) -> bool:
    """Whether all names but the first are those of fields, such as Open and Close."""
    return len(row) > 1 and all(plain(cell) in FIELDS for cell in row[1:])
