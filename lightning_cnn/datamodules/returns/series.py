"""Further series beside the returns, as channels: volumes, other prices, or one that is the same for all stocks."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import pandas as pd

from lightning_cnn.datamodules.returns.file_options import Decimal, FileOptions
from lightning_cnn.datamodules.returns.price_file import Prices, read_prices
from lightning_cnn.datamodules.returns.windows import Floats, change
from lightning_cnn.errors import UserError


class SeriesOptions(TypedDict, total=False):
    """A further series.

    Attributes:
        file: Its file; default the price file.
        column: Its column, where the file is long; default the name of the channel.
        monthly: `last` value of each month (the default), or their `mean`.
        decimal: Decimal separator of the numbers in its file, `comma` or `point`; default recognized.
        change: Whether the network sees the relative change from the month before (the default), or the value itself.
    """

    file: str
    column: str
    monthly: Literal["last", "mean"]
    decimal: Decimal
    change: bool


def read_series(name: str, options: SeriesOptions, prices: Prices, price_file: str, given: FileOptions) -> Floats:
    """A further series in the months and tickers of the prices.

    Args:
        name: Its name.
        options: What the user said about it.
        prices: The prices.
        price_file: Their file.
        given: What the user said about it.

    Returns:
        `(months, tickers)`, NaN where there is no value.

    Raises:
        UserError: If it can't be read, or has none of the tickers.
    """
    file = options.get("file")
    column = options.get("column", None if file else name)
    mean = options.get("monthly") == "mean"
    if file and not Path(file).exists():
        raise UserError(f"`data.channels` {name}: there is no file {file}: name a .parquet or .csv file")
    try:
        own = FileOptions(price_column=column, decimal=options.get("decimal"))
        wanted = own if file else replace(given, price_column=column, returns=False)
        found = read_prices(file or price_file, wanted, positive=False, mean=mean)
    except UserError as error:
        text = str(error).replace(
            "set `data.decimal` comma or point", 'add "decimal": "comma" or "point" to the channel'
        )
        raise UserError(f"`data.channels` {name}: {text}") from None
    if len(found.tickers) > 1 and not set(found.tickers) & set(prices.tickers):
        raise UserError(
            f"`data.channels` {name}: its tickers ({', '.join(found.tickers[:3])}, ...) are not those of the prices "
            f"({', '.join(prices.tickers[:3])}, ...)"
        )
    table = pd.DataFrame(found.closes, found.months.astype("datetime64[s]"), found.tickers)
    table = table.reindex(prices.months.astype("datetime64[s]"))
    if len(found.tickers) > 1:
        table = table.reindex(columns=prices.tickers)
    levels: Floats = np.broadcast_to(table.to_numpy(), prices.closes.shape)
    return change(levels) if options.get("change", True) else levels
