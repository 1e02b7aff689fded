"""What the columns of a price file are, and its prices as flat arrays: Parquet or CSV, wide or long."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, csv, parquet

from lightning_cnn.datamodules.returns.price_table import Floats, Integers
from lightning_cnn.errors import UserError, did_you_mean

Cells = tuple[Integers, Integers, Floats, Integers]

# names in small letters, without blanks and marks; of several the first
INDICES = ("indexlevel0", "unnamed0", "")  # what pandas calls the numbers of the rows, where these are no dates
DATES = ("date", "datetime", "timestamp", "time", "day", "month", "caldt", "index", *INDICES)
TICKERS = ("ticker", "symbol", "permno", "tic", "ric", "sid", "isin", "cusip", "asset", "stock", "instrument")
PRICES = ("adjclose", "adjustedclose", "closeadj", "adjprice", "adjustedprice", "close", "price", "prc", "pxlast")

BLOCK_BYTES = 1 << 25  # of a CSV file, read at once
CELLS = 4_000_000  # prices of a Parquet file, held at once


class PriceSource:
    """A price file, whose kind and columns are known, and which is read piece by piece.

    Args:
        path: The file.
        named: The names of the columns `date`, `ticker` and `price`; None where they are to be recognized.

    Attributes:
        tickers: The names of the tickers that were found so far; a code of `cells` is a position among them.
        unsorted: Prices whose date lay before that of the ticker's price above them.

    Raises:
        UserError: If the file can't be read, or the columns can't be recognized.
    """

    def __init__(self, path: Path, **named: str | None) -> None:
        if not path.is_file():
            raise UserError(f"there is no price file {path}: set `data.prices` to a .parquet or .csv file")
        self.path = path
        self.tickers: list[str] = []
        self.unsorted = 0
        self._codes: dict[str, int] = {}
        self._latest: Integers = np.empty(0, dtype=np.int64)
        self._as_text: dict[str, Any] = {}
        self._is_csv = path.name.endswith((".csv", ".csv.gz", ".txt", ".tsv", ".csv.bz2"))
        with self._readable():
            self._open()
        self._recognise(named)

    def cells(self) -> Iterator[Cells]:
        """Days since 1970-01-01, codes of tickers in ascending order, prices (NaN: missing), and rows of the file."""
        with self._readable():
            yield from self._long_cells() if self.is_long else self._wide_cells()

    def _open(self) -> None:
        if self._is_csv:
            with pa.input_stream(str(self.path)) as stream:
                start = stream.read(1 << 20).decode("utf-8", errors="replace")
            header = start.partition("\n")[0]
            self._delimiter = max(",;\t", key=header.count)
            self.schema: Any = self._csv({}, None).schema
        else:
            self._file: Any = parquet.ParquetFile(self.path)
            self.schema = self._file.schema_arrow

    def _csv(self, types: dict[str, Any], columns: Sequence[str] | None) -> Any:
        return csv.open_csv(
            self.path,
            csv.ReadOptions(block_size=BLOCK_BYTES),
            csv.ParseOptions(delimiter=self._delimiter),
            csv.ConvertOptions(column_types=types | self._as_text, include_columns=columns),
        )

    def _recognise(self, named: Mapping[str, str | None]) -> None:
        kinds = dict(zip(self.schema.names, self.schema.types, strict=True))
        text = [name for name, kind in kinds.items() if _is_text(kind)]
        dates = [name for name, kind in kinds.items() if pa.types.is_temporal(kind)]
        possible = [name for name, kind in kinds.items() if not pa.types.is_floating(kind)]
        date = self._given("date", named) or _first(possible, DATES) or (dates[0] if len(dates) == 1 else None)
        if date is None:
            raise UserError(
                f"{self.path} has no column of dates among {_listed(kinds)}: name it with `data.date_column`"
            )
        self.date = date
        if self._is_csv and getattr(kinds[date], "tz", None):
            self._as_text = {date: pa.string()}  # read as times they would be those of Greenwich
        whole = [name for name, kind in kinds.items() if pa.types.is_integer(kind)]
        ticker = self._given("ticker", named) or _first([*text, *whole], TICKERS)
        self.is_long = ticker is not None
        if ticker is None:
            if named["price"] is not None:
                raise UserError(
                    f"`data.price_column` {named['price']} is for long files, and {self.path} has no column of tickers "
                    f"among {_listed(kinds)}: name it with `data.ticker_column`"
                )
            if odd := [name for name in text if name != date]:
                raise UserError(
                    f"{self.path}: the column {odd[0]!r} holds text, not prices; for a long file set "
                    "`data.ticker_column` and `data.price_column`"
                )
            self.names = [name for name in self.schema.names if name != date and _plain(name) not in INDICES]
            if not self.names:
                raise UserError(f"{self.path} has no column of prices, only {date!r}")
            return
        price = self._given("price", named) or _first(kinds, PRICES)
        if price is None:
            raise UserError(
                f"{self.path} has no column of prices among {_listed(kinds)}: name it with `data.price_column`"
            )
        if _is_text(kinds[price]) or pa.types.is_temporal(kinds[price]):
            raise UserError(f"{self.path}: the column {price!r} holds no numbers: name another `data.price_column`")
        self.ticker, self.price = ticker, price

    def _given(self, what: str, named: Mapping[str, str | None]) -> str | None:
        name = named[what]
        if name is not None and name not in self.schema.names:
            hint = did_you_mean(name, self.schema.names) or f"; it has {_listed(self.schema.names)}"
            raise UserError(f"`data.{what}_column` {name}: {self.path} has no such column{hint}")
        return name

    def _long_cells(self) -> Iterator[Cells]:
        names = [self.date, self.ticker, self.price]
        if self._is_csv:
            kind = self.schema.field(self.ticker).type
            types = {self.ticker: pa.dictionary(pa.int32(), pa.string()) if _is_text(kind) else kind}
            batches = self._csv({**types, self.price: pa.float64()}, names)
        else:
            source = parquet.ParquetFile(self.path, read_dictionary=[self.ticker])
            batches = source.iter_batches(batch_size=CELLS // 4, columns=names)
        first = 0
        for batch in batches:
            days, prices = self._days(batch.column(self.date)), _floats(batch.column(self.price))
            codes = self._coded(batch.column(self.ticker))
            order = np.argsort(codes, kind="stable")
            days, codes, prices, rows = days[order], codes[order], prices[order], order + first
            first += len(order)
            self._count_unsorted(days, codes)
            yield days, codes, prices, rows

    def _wide_cells(self) -> Iterator[Cells]:
        self.tickers = list(dict.fromkeys(self.names))
        self._codes = {name: code for code, name in enumerate(self.tickers)}
        if self._is_csv:
            first, before = 0, np.empty(0, dtype=np.int64)
            for batch in self._csv(dict.fromkeys(self.tickers, pa.float64()), None):
                days = self._days(batch.column(self.schema.names.index(self.date)))
                joined = np.r_[before, days]
                self.unsorted += int((joined[1:] < joined[:-1]).sum())
                yield self._flat(days, batch, set(self.tickers), first)
                first, before = first + len(days), days[-1:]
            return
        days = self._days(self._file.read(columns=[self.date]).column(self.date))
        self.unsorted = int((days[1:] < days[:-1]).sum())
        width = max(1, CELLS // max(1, len(days)))
        for start in range(0, len(self.tickers), width):
            group = self.tickers[start : start + width]
            yield self._flat(days, self._file.read(columns=group), set(group), 0)

    def _flat(self, days: Integers, table: Any, wanted: set[str], first: int) -> Cells:
        """The columns of a table one below the other; reading `A` also gives `A.B`, so they are picked by name."""
        places = [place for place, name in enumerate(table.schema.names) if name in wanted]
        codes = np.array([self._codes[table.schema.names[place]] for place in places])
        order = np.argsort(codes, kind="stable")
        prices = np.concatenate([_floats(table.column(places[place])) for place in order])
        rows = np.arange(first, first + len(days))
        return np.tile(days, len(places)), np.repeat(codes[order], len(days)), prices, np.tile(rows, len(places))

    def _coded(self, tickers: Any) -> Integers:
        """Numbers of the tickers, the same in all batches."""
        if isinstance(tickers, pa.ChunkedArray):
            tickers = tickers.combine_chunks()
        if not pa.types.is_dictionary(tickers.type):
            tickers = compute.dictionary_encode(tickers)
        if tickers.null_count:
            raise UserError(f"{self.path}: {tickers.null_count} rows have no ticker in {self.ticker!r}: remove them")
        names = [str(name) for name in tickers.dictionary.to_pylist()]
        for name in names:
            if name not in self._codes:
                self._codes[name] = len(self.tickers)
                self.tickers.append(name)
        known = np.array([self._codes[name] for name in names], dtype=np.int64)
        return np.asarray(known[tickers.indices.to_numpy()])

    def _count_unsorted(self, days: Integers, codes: Integers) -> None:
        """Counts prices that come after a later one of the same ticker, in this piece or at the end of the last."""
        if not len(days):
            return
        self._latest = np.r_[self._latest, np.full(len(self.tickers) - len(self._latest), np.iinfo(np.int64).min)]
        same = codes[1:] == codes[:-1]
        first, last = np.r_[True, ~same], np.r_[~same, True]
        self.unsorted += int((same & (days[1:] < days[:-1])).sum() + (days[first] < self._latest[codes[first]]).sum())
        self._latest[codes[last]] = days[last]

    def _days(self, dates: Any) -> Integers:
        """Days since 1970-01-01 of a column of dates."""
        try:
            days = _as_days(dates)
        except (ValueError, TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
            days = None
        if days is None or np.isnat(days).any():
            raise UserError(
                f"{self.path}: not every value of the column {self.date!r} is a date such as 2017-12-29: correct it, "
                "or name another with `data.date_column`"
            )
        return np.asarray(days.astype(np.int64))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            kind = "CSV" if self._is_csv else "Parquet"
            raise UserError(f"{self.path} can't be read as {kind} ({reason}): give another file") from None


TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]")


def _as_days(dates: Any) -> Any:
    kind = dates.type
    if _is_text(kind):
        coded = compute.dictionary_encode(dates.cast(pa.string()))
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        # the day of a time is that of the place where it was measured, whatever the offset behind it
        texts = [text[:10] if TIME.match(text) else text for text in coded.dictionary.to_pylist()]
        different = np.array([*texts, "NaT"], dtype="datetime64[D]")
        return different[np.asarray(coded.indices.fill_null(len(texts)))]
    if getattr(kind, "tz", None):
        dates = compute.local_timestamp(dates)
    values = np.asarray(dates)
    if pa.types.is_temporal(kind):
        return values.astype("datetime64[D]")
    if not pa.types.is_integer(kind) or dates.null_count:
        raise ValueError("no dates")
    values = np.where(values < 1_000_000, values * 100 + 1, values)  # 201712 is a month
    years, months, of_month = values // 10_000, values // 100 % 100, values % 100
    if not (((years > 1700) & (years < 2300) & (months > 0) & (months < 13) & (of_month > 0) & (of_month < 32)).all()):
        raise ValueError("no dates")
    return ((years - 1970) * 12 + months - 1).astype("datetime64[M]").astype("datetime64[D]") + (of_month - 1)


def _floats(column: Any) -> Floats:
    """A column as float64, NaN where nothing is."""
    return np.asarray(column.cast(pa.float64()))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _first(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The name that comes first among the wanted ones."""
    plain = {_plain(name): name for name in reversed([*names])}
    return next((plain[name] for name in wanted if name in plain), None)


def _plain(name: str) -> str:
    """A name in small letters, without blanks and marks."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(names: Iterable[str]) -> str:
    shown = [name or "(no name)" for name in names]
    return ", ".join(shown[:6]) + (", ..." if len(shown) > 6 else "")
