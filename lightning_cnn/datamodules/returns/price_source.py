"""The prices of a file or folder of any format and layout, as flat arrays, piece by piece."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from lightning_cnn.datamodules.returns.csv_files import CsvTable, UnclearNumbersError
from lightning_cnn.datamodules.returns.file_options import NOTHING_SAID, FileOptions
from lightning_cnn.datamodules.returns.folder import NO_TABLE, constants_of, files_of, open_table, stem_of
from lightning_cnn.datamodules.returns.layout import Layout, find_layout
from lightning_cnn.datamodules.returns.price_table import Floats, Integers
from lightning_cnn.datamodules.returns.table_files import TableFile
from lightning_cnn.dates import NEVER, DateForm, UnclearDatesError, find_form
from lightning_cnn.errors import UserError

Cells = tuple[Integers, Integers, Floats, Integers]

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")  # what CRSP writes instead of a return that is missing


class PriceSource:
    """A price file or folder, whose layout is known, and which is read piece by piece.

    Args:
        path: The file, or a folder of files: one a ticker, or parts of one table.
        options: What the user said about it.

    Attributes:
        layout: What the columns of the (first) file are.
        form: How its dates are read.
        tickers: The tickers that were found so far; a code of `cells` is a position among them.
        unsorted: Prices whose date lay before that of the ticker's price above them.
        undated: Rows without a date.
        nameless: Rows without a ticker.
        unreadable: Cells that should hold a number, and don't, by ticker (or column).
        impossible: Returns below -100 %, such as CRSP's codes for missing ones.
        doubled: Returns above 100 %.
        ragged: Rows with another number of cells than the header.
        last_day: The last date of the file, whether or not there is a price.
        skipped: Files of a folder that were not read, and why.

    Raises:
        UserError: If nothing can be read, or the columns can't be recognized.
    """

    def __init__(self, path: Path, options: FileOptions = NOTHING_SAID) -> None:
        self.path, self.options = path, options
        self.lenient = False
        self.files, self.skipped = files_of(path, options.returns)
        self.table, self.layout = self._lead()
        self.form = self._form()
        self._restart()

    @property
    def is_folder(self) -> bool:
        """Whether there are several files."""
        return self.path.is_dir()

    def cells(self) -> Iterator[Cells]:
        """Days since 1970-01-01, codes of tickers in ascending order, prices (NaN: missing), and rows of the file.

        Raises:
            UnreadableCellError: If a cell that should hold a number does not, and `lenient` is not set.
        """
        self._restart()
        for number, path in enumerate(self.files):
            try:
                table = self.table if number == 0 else open_table(path, self.options)
                layout = self.layout if number == 0 else self._layout_of(table)
            except UnclearNumbersError:
                raise  # an option decides, for all files
            except UserError as error:
                self._skip(path, str(error))
                continue
            if (layout.kind, layout.field) != (self.layout.kind, self.layout.field):
                what = f"{layout.kind}, {layout.field.kind}"
                self._skip(path, f"{what}, where {self.files[0].name} is {self.layout.kind}, {self.layout.field.kind}")
                continue
            table.lenient = self.lenient
            table.unreadable.clear()
            table.nulls = LETTERS if layout.field.kind == "returns" else ()
            with table.readable():
                yield from self._wide(table, layout) if layout.kind == "wide" else self._long(table, layout)
            self.ragged += table.skipped_rows
        unlike = {name: why for name, why in self.skipped.items() if why != NO_TABLE}
        count = len(self.files) + self._dropped
        if len(unlike) > count / 2:
            name, why = next(iter(unlike.items()))
            raise UserError(
                f"{self.path}: {len(unlike):,} of {count:,} files can't be read like {self.files[0].name}, "
                f"such as {name}: {why}; remove them, or set `data.price_column` to a column that all have"
            )

    @property
    def rows(self) -> int:
        """The rows read so far, those that were skipped included."""
        return self._rows + self.ragged

    def _restart(self) -> None:
        self.tickers: list[str] = []
        self.unsorted = self.undated = self.nameless = self.impossible = self.doubled = self.ragged = 0
        self.unreadable: dict[str, int] = {}
        self.last_day = NEVER
        self._codes: dict[str, int] = {}
        self._latest: Integers = np.empty(0, dtype=np.int64)
        self._rows = 0

    def _lead(self) -> tuple[TableFile, Layout]:
        """The first file that can be read; those before it are skipped."""
        first: UserError | None = None
        for number, path in enumerate(self.files):
            try:
                table = open_table(path, self.options)
                layout = self._layout_of(table)
            except UnclearNumbersError:
                raise
            except UserError as error:
                first = first or error
                self._skip(path, str(error))
                continue
            self.files, self._dropped = self.files[number:], number
            return table, layout
        assert first is not None
        raise first

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped[str(path.relative_to(self.path)) if path != self.path else path.name] = reason

    def _layout_of(self, table: TableFile) -> Layout:
        return find_layout(table, self.options, constants_of(table.path, self.path), stem_of(table.path))

    def _form(self) -> DateForm:
        """How dates are read: by the first file that decides."""

        def hint(option: str, example: str) -> str:
            return f"set `data.{option}` {example}"

        unclear: UnclearDatesError | None = None
        for number, path in enumerate(self.files[:200]):
            try:
                table = self.table if number == 0 else open_table(path, self.options)
                place = self.layout.date if number == 0 else self._layout_of(table).date
                head, freq = table.head(place), table.freqs.get(place)

                def more(table: TableFile = table, place: int = place) -> Any:
                    return table.whole(place)

                return find_form(head, self.options.date_format, self.options.time_zone, hint, more, freq)
            except UnclearDatesError as error:
                unclear = unclear or error
            except UserError:
                if number == 0:
                    raise
        raise UserError(f"{self.path}: {unclear}")

    def _days(self, column: Any) -> Integers:
        days = self.form.days(column)
        known = days[days != NEVER] if (days == NEVER).any() else days
        if len(known):
            self.last_day = max(self.last_day, int(known.max()))
        return days

    def _long(self, table: TableFile, layout: Layout) -> Iterator[Cells]:
        places = [layout.date, *([] if layout.ticker is None else [layout.ticker]), *layout.places.values()]
        texts = [] if layout.ticker is None else [layout.ticker]
        for _, block in table.blocks(list(dict.fromkeys(places)), False, texts):
            days = self._days(block[layout.date])
            rows = np.arange(self._rows, self._rows + len(days))
            self._rows += len(days)
            if layout.ticker is None:
                codes = np.full(len(days), self._code(layout.constant), dtype=np.int64)
            else:
                codes = self._coded(block[layout.ticker])
            columns = {role: table.floats(place, block[place]) for role, place in layout.places.items()}
            values = self._value(layout, columns)
            good = (days != NEVER) & (codes >= 0)
            if not good.all():
                self.undated += int((days == NEVER).sum())
                self.nameless += int((codes < 0).sum())
                days, codes, values, rows = days[good], codes[good], values[good], rows[good]
            if (codes[1:] < codes[:-1]).any():
                order = np.argsort(codes, kind="stable")
                days, codes, values, rows = days[order], codes[order], values[order], rows[order]
            self._count_unsorted(days, codes)
            yield days, codes, values, rows
        for bad, count in table.unreadable.items():
            self.unreadable[table.names[bad]] = self.unreadable.get(table.names[bad], 0) + count

    def _wide(self, table: TableFile, layout: Layout) -> Iterator[Cells]:
        tickers = dict(layout.stocks)
        codes_of = {place: self._code(name) for place, name in layout.stocks}
        before = np.empty(0, dtype=np.int64)
        is_csv, end = isinstance(table, CsvTable), self._rows
        for number, (first, block) in enumerate(table.blocks([layout.date, *tickers], True)):
            days = self._days(block[layout.date])
            rows = np.arange(self._rows + first, self._rows + first + len(days))
            end = max(end, self._rows + first + len(days))
            good = days != NEVER
            if is_csv or number == 0:
                self.undated += int((~good).sum())
                joined = np.r_[before, days[good]]
                self.unsorted += int((joined[1:] < joined[:-1]).sum())
                before = joined[-1:]
            places = sorted((place for place in block if place != layout.date), key=codes_of.__getitem__)
            values = np.concatenate([table.floats(place, block[place]) for place in places])
            values = self._value(layout, {"value": values})
            codes = np.repeat(np.array([codes_of[place] for place in places], dtype=np.int64), len(days))
            days, rows = np.tile(days, len(places)), np.tile(rows, len(places))
            if not good.all():
                kept = np.tile(good, len(places))
                days, codes, values, rows = days[kept], codes[kept], values[kept], rows[kept]
            yield days, codes, values, rows
        self._rows = end
        for bad, count in table.unreadable.items():
            self.unreadable[tickers[bad]] = self.unreadable.get(tickers[bad], 0) + count

    def _value(self, layout: Layout, columns: dict[str, Floats]) -> Floats:
        """The prices or returns, computed from their columns."""
        field = layout.field
        values = columns["value"]
        if field.kind == "returns":
            values = self._possible(values * field.share if field.share != 1 else values)
            if "then" in columns:
                then = self._possible(columns["then"])
                both = (1 + np.nan_to_num(values)) * (1 + np.nan_to_num(then)) - 1
                values = np.where(np.isnan(values) & np.isnan(then), np.nan, np.where(np.isnan(then), values, both))
            return values
        if field.signed:
            values = np.abs(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            if field.divide:
                factor = columns["divide"]
                values = np.where(factor > 0, values / factor, np.nan)
            if field.times:
                factor = columns["times"]
                values = np.where(factor > 0, values * factor, np.nan)
        return values

    def _possible(self, returns: Floats) -> Floats:
        wrong = returns < -1
        self.doubled += int((returns > 1).sum())
        if wrong.any():
            self.impossible += int(wrong.sum())
            returns = np.where(wrong, np.nan, returns)
        return returns

    def _code(self, name: str) -> int:
        """The number of a ticker."""
        if name not in self._codes:
            self._codes[name] = len(self.tickers)
            self.tickers.append(name)
        return self._codes[name]

    def _coded(self, tickers: Any) -> Integers:
        """Numbers of the tickers, the same in all blocks; -1 where there is none."""
        if isinstance(tickers, pa.ChunkedArray):
            tickers = tickers.combine_chunks()
        if not pa.types.is_dictionary(tickers.type):
            tickers = compute.dictionary_encode(tickers)
        names = ["" if name is None else _name(name) for name in tickers.dictionary.to_pylist()]
        known = np.array([*(self._code(name) if name else -1 for name in names), -1], dtype=np.int64)
        indices = tickers.indices.fill_null(len(names)) if tickers.null_count else tickers.indices
        return np.asarray(known[np.asarray(indices)])

    def _count_unsorted(self, days: Integers, codes: Integers) -> None:
        """Counts prices that come after a later one of the same ticker, in this piece or at the end of the last."""
        if not len(days):
            return
        self._latest = np.r_[self._latest, np.full(len(self.tickers) - len(self._latest), np.iinfo(np.int64).min)]
        same = codes[1:] == codes[:-1]
        first, last = np.r_[True, ~same], np.r_[~same, True]
        self.unsorted += int((same & (days[1:] < days[:-1])).sum() + (days[first] < self._latest[codes[first]]).sum())
        self._latest[codes[last]] = days[last]


def _name(value: Any) -> str:
    """An identifier as text: 10107 and 10107.0 are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
