"""What a user can say about a price file that is not recognized, or not as it should be."""

from dataclasses import dataclass
from typing import Literal

EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")  # suffixes of files that need the extra `excel`
LayoutName = Literal["wide", "long", "one_stock"]
LastMonth = Literal["finished", "unfinished"]
Decimal = Literal["comma", "point"]
DECIMALS = {"comma": ",", "point": "."}


@dataclass(frozen=True)
class FileOptions:
    """What a user said about a price file; None where it is to be recognized.

    Attributes:
        date_column: The column of dates.
        ticker_column: The column of tickers of a long file.
        price_column: The column of prices (or returns) of a long file, or the field of one with two rows of names.
        layout: `wide`, `long` or `one_stock`.
        date_format: A format of `datetime.strptime`.
        time_zone: The zone to which times are converted.
        returns: Whether the file is one of returns.
        last_month: Whether the last month is `finished` or `unfinished`.
        delisting_return: Return of a stock from its last price on, where its prices are 0 from then to its last row.
        decimal: The decimal separator of numbers that are texts.
    """

    date_column: str | None = None
    ticker_column: str | None = None
    price_column: str | None = None
    layout: LayoutName | None = None
    date_format: str | None = None
    time_zone: str | None = None
    returns: bool = False
    last_month: LastMonth | None = None
    delisting_return: float | None = None
    decimal: Decimal | None = None


NOTHING_SAID = FileOptions()
