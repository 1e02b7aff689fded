"""Small price files with simulated prices."""

from pathlib import Path

import numpy as np
import pandas as pd


def panel(stocks: int = 30, start: str = "2006-01", end: str = "2012-12", seed: int = 0) -> pd.DataFrame:
    """Drawn closes of all weekdays, dates x tickers `T00`, `T01`, ..."""
    days = pd.bdate_range(f"{start}-01", pd.Period(end, "M").end_time.normalize(), name="date")
    steps = np.random.default_rng(seed).normal(0.0004, 0.02, (len(days), stocks))
    names = [f"T{number:02d}" for number in range(stocks)]
    return pd.DataFrame(100 * np.exp(np.cumsum(steps, axis=0)), days, names)


def dirty_panel() -> pd.DataFrame:
    """`panel`, of which one stock is listed late, one has a gap, one dies in 2010, one in 2012, one is frozen."""
    table = panel()
    table.loc[:"2009-05", "T01"] = np.nan
    table.loc["2010-02", "T02"] = np.nan
    table.loc["2010-06-11":, "T03"] = np.nan
    table.loc["2012-03-02":, "T04"] = np.nan
    table.loc["2008-06":"2010-12", "T05"] = 50.0
    return table


def long(closes: pd.DataFrame) -> pd.DataFrame:
    """The same prices with a row for each date and ticker."""
    table = closes.rename_axis(columns="ticker").stack().rename("adj_close")
    return table.reset_index()


def write(table: pd.DataFrame, path: Path) -> Path:
    """Writes prices, wide with the dates as index, or long. Returns the path."""
    index = table.index.name == "date"
    if path.suffix == ".parquet":
        (table.reset_index() if index else table).to_parquet(path, index=False)
    else:
        table.to_csv(path, index=index)
    return path
