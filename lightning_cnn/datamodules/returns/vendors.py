"""What vendors call the columns of their price files: the table to which the next vendor is added.

Names are compared in small letters, without blanks, marks, and the numbers of Alpha Vantage's (`5. adjusted close`).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

FieldKind = Literal["returns", "adjusted close", "close and factor", "close"]


@dataclass(frozen=True)
class Field:
    """Columns from which a value is computed: `abs(value) / divide * times`; of returns `(1 + value)(1 + then) - 1`.

    Attributes:
        kind: What the value is.
        value: The column.
        divide: The column by which it is divided, such as a cumulative split factor.
        times: The column by which it is multiplied.
        then: A further return after it, such as that of a delisting.
        signed: Whether a negative price is the mean of bid and ask, and zero means that there is none.
        share: What the values are multiplied by; 0.01 for per cent.
    """

    kind: FieldKind
    value: str
    divide: str = ""
    times: str = ""
    then: str = ""
    signed: bool = False
    share: float = 1.0

    @property
    def columns(self) -> list[str]:
        """The columns it needs, and `then`, which may be absent."""
        return [name for name in (self.value, self.divide, self.times, self.then) if name]


@dataclass(frozen=True)
class Vendor:
    """The layout of a vendor, known by its columns of dates and tickers and one of its fields.

    Attributes:
        name: The vendor.
        date: The column of dates.
        ticker: The columns of identifiers; the first there is counts.
        fields: What is taken, the best first.
    """

    name: str
    date: str
    ticker: Sequence[str]
    fields: Sequence[Field]


VENDORS = (
    Vendor("CRSP", "date", ["permno"], [
        Field("returns", "ret", then="dlret"),
        Field("close and factor", "prc", divide="cfacpr", signed=True),
        Field("close", "prc", signed=True),
    ]),
    Vendor("CRSP, flat, daily", "dlycaldt", ["permno"], [
        Field("returns", "dlyret"),
        Field("close and factor", "dlyprc", divide="dlycumfacpr", signed=True),
        Field("close", "dlyprc", signed=True),
    ]),
    Vendor("CRSP, flat, monthly", "mthcaldt", ["permno"], [
        Field("returns", "mthret"),
        Field("close and factor", "mthprc", divide="mthcumfacpr", signed=True),
        Field("close", "mthprc", signed=True),
    ]),
    Vendor("Compustat, daily", "datadate", ["tic", "gvkey"], [
        Field("close and factor", "prccd", divide="ajexdi", times="trfd"),
        Field("close and factor", "prccd", divide="ajexdi"),
    ]),
    Vendor("Compustat, monthly", "datadate", ["tic", "gvkey"], [
        Field("returns", "trt1m", share=0.01),
        Field("close and factor", "prccm", divide="ajexm", times="trfm"),
        Field("close and factor", "prccm", divide="ajexm"),
    ]),
    Vendor("Tushare", "tradedate", ["tscode"], [Field("close and factor", "close", times="adjfactor")]),
)  # fmt: skip

# of files of no vendor above, of several names the first
INDICES = ("indexlevel0", "unnamed0", "")  # what pandas calls the numbers of the rows, where these are no dates
DATES = (
    "date", "datetime", "timestamp", "time", "day", "month", "caldt", "tradedate", "tradingdate", "pricedate",
    "datadate", "dlycaldt", "mthcaldt", "yyyymmdd", "index", *INDICES,
)  # fmt: skip
TICKERS = (
    "ticker", "symbol", "permno", "tic", "tscode", "ric", "sid", "isin", "cusip", "asset", "stock", "instrument",
    "security", "code", "gvkey", "name",
)  # fmt: skip
ADJUSTED = (
    "adjclose", "adjustedclose", "closeadj", "closeadjusted", "adjprice", "adjustedprice", "priceadj", "adjcloseprice",
    "adjclosingprice", "adjustedcloseprice", "totalreturnindex", "totreturnindexgrossdvds",
)  # fmt: skip
CLOSES = (
    "close", "price", "closeprice", "priceclose", "closingprice", "last", "lastprice", "pxlast", "prc", "trdprc1",
)  # fmt: skip
RETURNS = ("ret", "return", "returns", "totalreturn", "dailyreturn", "monthlyreturn", "dlyret", "mthret")
# of one stock beside its close; no stocks
OTHERS = (
    "open", "high", "low", "volume", "vol", "vwap", "turnover", "amount", "dividend", "dividends", "dividendamount",
    "divcash", "stocksplits", "splitcoefficient", "splitfactor", "splitratio", "exdividend", "capitalgains", "change",
    "changepercent", "changeovertime", "unadjustedvolume", "openint", "openinterest", "bid", "ask", "trades",
    "numberoftrades", "marketcap", "adjopen", "adjhigh", "adjlow", "adjvolume", "adjfactor", "repaired", "label",
    "per", "preclose", "pctchg", "date", "time",
)  # fmt: skip
FIELDS = frozenset({*ADJUSTED, *CLOSES, *OTHERS})


@lru_cache(1 << 17)
def plain(name: str) -> str:
    """A name in small letters, without blanks, marks and a number before a dot; without a to z in its own alphabet."""
    shown = re.sub(r"^\d+[a-z]?\. ", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", shown) or re.sub(r"[\W_]", "", shown)


def first(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The name that comes first among the wanted ones."""
    found = {plain(name): name for name in reversed([*names])}
    return next((found[name] for name in wanted if name in found), None)


def generic_fields(returns: bool) -> list[Field]:
    """What is taken of a file of no vendor, the best first.

    Args:
        returns: Whether the file is one of returns.
    """
    if returns:
        return [Field("returns", name) for name in RETURNS]
    return [Field("adjusted close", name) for name in ADJUSTED] + [Field("close", name) for name in CLOSES]


def vendor_of(names: Iterable[str]) -> Vendor | None:
    """The vendor whose columns these are, None for a file of no known one."""
    known = {plain(name) for name in names}
    for vendor in VENDORS:
        has_field = any({*field.columns} - {field.then} <= known for field in vendor.fields)
        if vendor.date in known and known & {*vendor.ticker} and has_field:
            return vendor
    return None
