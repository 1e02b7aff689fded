"""Which column of a price file is what: by its name, and where a name decides nothing, by what it holds."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lightning_cnn.datamodules.returns import vendors
from lightning_cnn.datamodules.returns.file_options import FileOptions, LayoutName
from lightning_cnn.datamodules.returns.table_files import TableFile
from lightning_cnn.datamodules.returns.vendors import ADJUSTED, CLOSES, FIELDS, INDICES, Field, first, plain
from lightning_cnn.dates import NEVER, UnclearDatesError, find_form, is_text
from lightning_cnn.errors import UserError, did_you_mean

LONGEST = 40  # characters of a name in a message
OF_ONE_STOCK = {"open", "high", "low", "close", "volume"}  # three of them are no tickers


@dataclass(frozen=True)
class Layout:
    """What the columns of a file are.

    Attributes:
        kind: `wide`, `long` or `one_stock`.
        vendor: Whose layout it is; empty for a general one.
        date: The place of the dates.
        field: What is taken, with the names of its columns.
        ticker: The place of the tickers of a long file.
        constant: The ticker of a file of one stock.
        places: The places of the columns of `field` by their role: `value`, `divide`, `times`, `then`.
        stocks: Place and ticker of each column of a wide file.
    """

    kind: LayoutName
    vendor: str
    date: int
    field: Field
    ticker: int | None = None
    constant: str = ""
    places: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stocks: Sequence[tuple[int, str]] = ()


def find_layout(table: TableFile, options: FileOptions, constants: Mapping[str, str], stem: str) -> Layout:
    """Finds out what the columns are.

    Args:
        table: The file.
        options: What the user said.
        constants: Values of the whole file by name, from the names of its folders, such as `ticker=AAPL`.
        stem: The ticker of the file, if it is one of one stock.

    Raises:
        UserError: If a column that is needed is missing, or there are two readings.
    """
    if table.levels is not None:
        return _two_levels(table, options)
    names = table.names
    vendor = vendors.vendor_of([*names, *constants]) if not options.price_column or not options.returns else None
    date = _date(table, options, vendor.date if vendor else None)
    ticker = None if options.layout in ("wide", "one_stock") else _ticker(table, options, date, vendor, constants)
    known_as = vendor.name if vendor else ""
    if ticker is not None:
        place = names.index(ticker) if ticker in names else None
        taken, places = _field(table, options, vendor, f"{table.path} has no column of {_what(options)}")
        return Layout("long", known_as, date, taken, place, constants.get(ticker, ""), places)
    if options.layout == "long":
        raise UserError(
            f"`data.layout` long: {table.path} has no column of tickers among {listed(names)}: name it with "
            "`data.ticker_column`"
        )
    others = [place for place, name in enumerate(names) if place != date and plain(name) not in INDICES]
    if options.layout == "one_stock" or (options.layout is None and _is_one_stock(table, options, others)):
        taken, places = _field(table, options, None, f"{table.path} has no column of {_what(options)}")
        return Layout("one_stock", known_as, date, taken, None, stem, places)
    if options.price_column is not None:
        raise UserError(
            f"`data.price_column` {options.price_column} is for long files, and {table.path} has no column of tickers "
            f"among {listed(names)}: name it with `data.ticker_column`"
        )
    if odd := next((names[place] for place in others if table.is_text(place)), None):
        raise UserError(
            f"{table.path}: the column {odd!r} holds text, not prices; for a long file set `data.ticker_column` and "
            "`data.price_column`"
        )
    if not others:
        raise UserError(f"{table.path} has no column of {_what(options)}, only {names[date]!r}")
    kind = Field("returns" if options.returns else "close", "")
    return Layout("wide", known_as, date, kind, stocks=[(place, names[place]) for place in others])


def listed(names: Iterable[str]) -> str:
    """The first of some names."""
    shown = [name[:LONGEST] or "(no name)" for name in names]
    return ", ".join(shown[:6]) + (", ..." if len(shown) > 6 else "")


def _what(options: FileOptions) -> str:
    return "returns" if options.returns else "prices"


def _given(table: TableFile, option: str, name: str, further: Iterable[str] = ()) -> str:
    known = [*table.names, *further]
    if name not in known:
        hint = did_you_mean(name, known) or f"; it has {listed(known)}"
        raise UserError(f"`data.{option}` {name}: {table.path} has no such column{hint}")
    return name


def _date(table: TableFile, options: FileOptions, of_vendor: str | None) -> int:
    names = table.names
    if options.date_column is not None:
        return names.index(_given(table, "date_column", options.date_column))
    wanted = [of_vendor] if of_vendor else vendors.DATES
    by_plain = {plain(name): place for place, name in reversed([*enumerate(names)])}
    by_name = [by_plain[name] for name in wanted if name in by_plain]
    known = next((place for place in by_name if _are_dates(table, place, options)), None)
    if known is not None:
        return known
    typed = [place for place, kind in enumerate(table.types) if pa.types.is_temporal(kind) or place in table.freqs]
    texts = [
        place for place, kind in enumerate(table.types[:50]) if is_text(kind) and _are_dates(table, place, options)
    ]
    found = typed or [place for place in texts if table.is_text(place)]
    if len(found) == 1:
        return found[0]
    _refuse_transposed(table)
    if by_name:
        return by_name[0]
    raise UserError(f"{table.path} has no column of dates among {listed(names)}: name it with `data.date_column`")


def _refuse_transposed(table: TableFile) -> None:
    names = pa.array(table.names[1:51], pa.string())
    if len(names) > 2 and float((find_form(names).days(names) != NEVER).mean()) > 0.5:
        raise UserError(
            f"{table.path} has dates as the names of its columns ({listed(table.names[1:3])}): transpose it, so that "
            "each date is a row, as .T of pandas does"
        )


def _are_dates(table: TableFile, place: int, options: FileOptions) -> bool:
    head = table.head(place)
    try:
        days = find_form(head, options.date_format, options.time_zone, freq=table.freqs.get(place)).days(head)
    except UnclearDatesError:
        return True
    return len(days) == 0 or float((days != NEVER).mean()) > 0.5


def _ticker(
    table: TableFile, options: FileOptions, date: int, vendor: vendors.Vendor | None, constants: Mapping[str, str]
) -> str | None:
    if options.ticker_column is not None:
        return _given(table, "ticker_column", options.ticker_column, constants)
    wanted = [*(vendor.ticker if vendor else ()), *vendors.TICKERS]
    if (name := first(constants, wanted)) is not None:
        return name
    possible = [
        name
        for place, name in enumerate(table.names)
        if place != date and plain(name) in wanted and (table.is_text(place) or _is_whole(table, place))
    ]
    texts = [name for name in possible if table.is_text(table.names.index(name))]
    # a ticker of CRSP passes from one company to another, its permno does not
    of_vendor = first(possible, vendor.ticker) if vendor else None
    return of_vendor or first(texts, wanted) or first(possible, wanted)


def _is_whole(table: TableFile, place: int) -> bool:
    values: Any = table.floats(place, table.head(place))
    table.unreadable.clear()
    known = values[values == values]
    return bool(len(known)) and bool((known == known.round()).all())


def _is_one_stock(table: TableFile, options: FileOptions, others: Sequence[int]) -> bool:
    """Whether the columns are fields of one stock: an open is no ticker where a close stands beside it."""
    closes = {*ADJUSTED, *CLOSES, *(vendors.RETURNS if options.returns else ())}
    names = {place: plain(table.names[place]) for place in others}
    known = [name for name in names.values() if name in FIELDS or name in closes]
    if not known:
        return False
    unknown = [table.names[place] for place, name in names.items() if name not in FIELDS and name not in closes]
    has_close = any(name in closes for name in known)
    if len({*known} & OF_ONE_STOCK) > 2 or (has_close and not unknown) or options.price_column in table.names:
        return True
    if not has_close and (unknown or len(known) < 2):
        return False
    unclear = [name for name in unknown if not table.is_text(table.names.index(name))]
    if has_close and not unclear:
        return True
    shown = [table.names[place] for place in others if names[place] in known]
    raise UserError(
        f"{table.path} can be a file of one stock, with {listed(shown)} as its fields, or a wide one, in which these "
        "and the others are tickers: set `data.layout` one_stock or wide"
    )


def _field(
    table: TableFile, options: FileOptions, vendor: vendors.Vendor | None, missing: str
) -> tuple[Field, dict[str, int]]:
    """What is taken, and where its columns are."""
    by_plain = {plain(name): place for place, name in reversed([*enumerate(table.names)])}
    fields = list(vendor.fields) if vendor else []
    if options.price_column is not None:
        name = _given(table, "price_column", options.price_column)
        known_as = plain(name) or name
        kind = "returns" if options.returns else "adjusted close" if known_as in ADJUSTED else "close"
        fields = [each for each in fields if each.value == known_as]
        fields.append(Field(kind, known_as))  # type: ignore[arg-type]
        by_plain[known_as] = table.names.index(name)
    else:
        fields += vendors.generic_fields(options.returns)
    if options.returns:
        fields = [each for each in fields if each.kind == "returns"]
    taken = next((each for each in fields if {*each.columns} - {each.then} <= by_plain.keys()), None)
    if taken is None:
        rate = None if options.returns else first(table.names, vendors.RETURNS)
        hint = "" if rate is None else f"; {rate!r} may hold returns: give the file as `data.returns` then"
        raise UserError(f"{missing} among {listed(table.names)}: name it with `data.price_column`{hint}")
    roles = {role: getattr(taken, role) for role in ("value", "divide", "times", "then")}
    places = {role: by_plain[name] for role, name in roles.items() if name and name in by_plain}
    for place in places.values():
        if pa.types.is_temporal(table.types[place]) or (taken.kind != "returns" and table.is_text(place)):
            raise UserError(
                f"{table.path}: the column {table.names[place]!r} holds no numbers: name another `data.price_column`"
            )
    return taken, places


def _two_levels(table: TableFile, options: FileOptions) -> Layout:
    """Columns with two names, a field and a ticker, as those of yfinance."""
    levels = table.levels
    assert levels is not None
    dates = [place for place, pair in enumerate(levels) if not all(pair) and plain("".join(pair)) in vendors.DATES]
    dates = dates or [place for place, kind in enumerate(table.types) if pa.types.is_temporal(kind)]
    if not dates:
        raise UserError(f"{table.path} has no column of dates among {listed(table.names)}")
    pairs = {place: pair for place, pair in enumerate(levels) if place != dates[0] and all(pair)}
    of_fields = [level for level in (0, 1) if all(plain(pair[level]) in FIELDS for pair in pairs.values())]
    if len(of_fields) != 1:
        raise UserError(
            f"{table.path} has two rows of names, such as {listed(table.names[1:3])}, and not one of them is that of "
            "fields such as Close: keep the row of tickers, and the columns of one field"
        )
    level = of_fields[0]
    fields = list(dict.fromkeys(pair[level] for pair in pairs.values()))
    if options.price_column is not None:
        if options.price_column not in fields:
            raise UserError(f"`data.price_column` {options.price_column}: {table.path} has the fields {listed(fields)}")
        name = options.price_column
    else:
        wanted = [each.value for each in vendors.generic_fields(options.returns)]
        found = first(fields, wanted)
        if found is None:
            raise UserError(f"{table.path} has the fields {listed(fields)}: name one with `data.price_column`")
        name = found
    kind: Any = "returns" if options.returns else "adjusted close" if plain(name) in ADJUSTED else "close"
    stocks = [(place, pair[1 - level].strip()) for place, pair in pairs.items() if pair[level] == name]
    return Layout("wide", "two rows of names", dates[0], Field(kind, plain(name)), stocks=stocks)
