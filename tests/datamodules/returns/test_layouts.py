"""The same prices in the layouts and formats that people have give the same windows."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from price_files import long, panel, write

from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.datamodules.returns.price_file import read_prices

LAGS = 3


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    """Two and a half years of six stocks, whose names are numbers with zeros before them."""
    closes = panel(6, "2009-03", "2011-08").round(4)
    closes.iloc[:200, 2] = np.nan
    closes.loc["2010-03":"2010-04", "T03"] = np.nan
    return closes.rename(columns=lambda name: f"00{int(name[1:]) + 1:04d}")


def windows(prices: str | None = None, returns: str | None = None) -> dict[Any, Any]:
    """All windows and outcomes, by ticker and month."""
    data = MonthlyReturns(prices, returns, lags=LAGS, val_months=3, clip=0, scale=False)
    found: dict[Any, Any] = {}
    for stage in ("fit", "test"):
        data.setup(stage)
    for part in ("train", "val", "test"):
        frame = data.frame(part)
        cut, outcomes, _ = data.arrays(part)
        for number, (date, ticker) in enumerate(zip(frame["date"], frame["ticker"], strict=True)):
            found[part, ticker, date] = (*cut[number, 0].tolist(), float(outcomes[number]))
    return found


def yahoo(one: pd.Series, factor: float = 2.0) -> pd.DataFrame:
    """A stock as Yahoo's download has it; its close is not adjusted."""
    rows = one.dropna()
    raw = rows * factor
    columns = {"Open": raw + 1, "High": raw + 2, "Low": raw - 1, "Close": raw, "Adj Close": rows}
    return pd.DataFrame(columns).assign(Volume=1000).rename_axis("Date")


def two_levels(closes: pd.DataFrame, field_first: bool = True) -> pd.DataFrame:
    """As yfinance gives it."""
    fields = {"Adj Close": closes, "Close": closes * 2, "Volume": closes * 0 + 1000}
    table = pd.concat(fields, axis=1, names=["Price", "Ticker"]).rename_axis("Date")
    return table if field_first else table.swaplevel(axis=1).sort_index(axis=1)


def folder_of_stocks(closes: pd.DataFrame, path: Path) -> Path:
    path.mkdir()
    for ticker in closes:
        yahoo(closes[ticker]).to_csv(path / f"{ticker}.csv")
    (path / "README.md").write_text("prices")
    return path


def partitioned(closes: pd.DataFrame, path: Path) -> Path:
    for ticker in closes:
        part = path / f"ticker={ticker}"
        part.mkdir(parents=True)
        closes[[ticker]].dropna().set_axis(["adj_close"], axis=1).reset_index().to_parquet(part / "0.parquet")
    return path


def by_year(closes: pd.DataFrame, path: Path) -> Path:
    for year, rows in closes.groupby(closes.index.year):
        (path / f"year={year}").mkdir(parents=True)
        long(rows).to_parquet(path / f"year={year}" / "part.parquet", index=False)
    return path


def crsp(closes: pd.DataFrame, path: Path) -> Path:
    """Raw prices, of which some are negative, with a split in the factor."""
    table = long(closes).rename(columns={"ticker": "PERMNO", "adj_close": "prc"})
    table["cfacpr"] = np.where(table["date"] < "2010-06-01", 4.0, 1.0)
    table["prc"] *= table["cfacpr"] * np.where(np.arange(len(table)) % 7 == 0, -1, 1)
    table["shrout"] = 5
    table.to_csv(path, index=False)
    return path


def compustat(closes: pd.DataFrame, path: Path) -> Path:
    table = long(closes).rename(columns={"ticker": "gvkey", "date": "datadate", "adj_close": "prccd"})
    table["ajexdi"] = np.where(table["datadate"] < "2010-06-01", 4.0, 1.0)
    table["prccd"] *= table["ajexdi"]
    table.assign(trfd=1.0).to_csv(path, index=False)
    return path


def german(closes: pd.DataFrame, path: Path) -> Path:
    table = closes.copy()
    table.index = table.index.strftime("%d.%m.%Y")
    table.to_csv(path, sep=";", decimal=",", encoding="latin-1")
    return path


def stooq(closes: pd.DataFrame, path: Path) -> Path:
    """The rows of a file of its bulk download, which begin with text, as those below a second row of names do."""
    table = long(closes)
    columns = {"<TICKER>": table["ticker"], "<PER>": "D", "<DATE>": table["date"].dt.strftime("%Y%m%d")}
    fields = {f"<{name}>": table["adj_close"] for name in ("OPEN", "HIGH", "LOW", "CLOSE")}
    pd.DataFrame(columns | {"<TIME>": "000000"} | fields | {"<VOL>": 7, "<OPENINT>": 0}).to_csv(path, index=False)
    return path


def refinitiv(closes: pd.DataFrame, path: Path) -> Path:
    table = long(closes)[["ticker", "date", "adj_close"]].set_axis(["Instrument", "Date", "Price Close"], axis=1)
    table.assign(Date=table["Date"].dt.strftime("%Y-%m-%dT00:00:00Z")).to_csv(path, index=False)
    return path


def zipped(closes: pd.DataFrame, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("prices.csv", closes.to_csv())
    return path


def saved(save: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write_it(path: Path) -> Path:
        save(path)
        return path

    return write_it


LAYOUTS: dict[str, Callable[[pd.DataFrame], Path]] = {
    "wide CSV": lambda closes: write(closes, Path("p.csv")),
    "long CSV": lambda closes: write(long(closes), Path("p.csv")),
    "long Parquet": lambda closes: write(long(closes), Path("p.parquet")),
    "upper case": lambda closes: saved(long(closes).to_csv)(Path("P.CSV")),
    "yfinance Parquet": lambda closes: saved(two_levels(closes).to_parquet)(Path("p.parquet")),
    "yfinance CSV": lambda closes: saved(two_levels(closes).to_csv)(Path("p.csv")),
    "yfinance CSV by ticker": lambda closes: saved(two_levels(closes, False).to_csv)(Path("p.csv")),
    "yfinance CSV, reset": lambda closes: saved(
        lambda path: two_levels(closes).reset_index().to_csv(path, index=False)
    )(Path("p.csv")),
    "CRSP": lambda closes: crsp(closes, Path("p.csv")),
    "Compustat": lambda closes: compustat(closes, Path("p.csv")),
    "folder of stocks": lambda closes: folder_of_stocks(closes, Path("stocks")),
    "partitioned by ticker": lambda closes: partitioned(closes, Path("parts")),
    "partitioned by year": lambda closes: by_year(closes, Path("years")),
    "Excel": lambda closes: saved(closes.reset_index().to_excel)(Path("p.xlsx")),
    "Feather": lambda closes: saved(closes.reset_index().to_feather)(Path("p.feather")),
    "zip": lambda closes: zipped(closes, Path("p.csv.zip")),
    "gzip, upper case": lambda closes: saved(lambda path: path.write_bytes(gzip.compress(closes.to_csv().encode())))(
        Path("P.CSV.GZ")
    ),
    "Stooq, bulk": lambda closes: stooq(closes, Path("p.txt")),
    "Refinitiv": lambda closes: refinitiv(closes, Path("p.csv")),
    "dates by another name": lambda closes: saved(closes.rename_axis("Datum").to_csv)(Path("p.csv")),
    "German dates by another name": lambda closes: saved(
        closes.set_axis(closes.index.strftime("%d.%m.%Y")).rename_axis("Datum").to_csv
    )(Path("p.csv")),
    "German": lambda closes: german(closes, Path("p.txt")),
    "periods": lambda closes: saved(closes.set_index(closes.index.to_period("D")).to_parquet)(Path("p.parquet")),
    "float dates": lambda closes: saved(
        closes.reset_index().assign(date=closes.index.strftime("%Y%m%d").astype(float)).to_parquet
    )(Path("p.parquet")),
    "day first": lambda closes: saved(closes.set_axis(closes.index.strftime("%d/%m/%Y")).rename_axis("date").to_csv)(
        Path("p.csv")
    ),
    "month first": lambda closes: saved(closes.set_axis(closes.index.strftime("%m/%d/%Y")).rename_axis("date").to_csv)(
        Path("p.csv")
    ),
    "names of months": lambda closes: saved(
        closes.set_axis(closes.index.strftime("%d-%b-%y")).rename_axis("date").to_csv
    )(Path("p.csv")),
    "Name": lambda closes: saved(long(closes).rename(columns={"ticker": "Name", "adj_close": "close"}).to_csv)(
        Path("p.csv")
    ),
    "Tokyo in UTC": lambda closes: saved(
        closes.tz_localize("Asia/Tokyo").tz_convert("UTC").rename_axis("date").reset_index().to_parquet
    )(Path("p.parquet")),
    "Tokyo in UTC, CSV": lambda closes: saved(
        closes.tz_localize("Asia/Tokyo").tz_convert("UTC").rename_axis("date").to_csv
    )(Path("p.csv")),
    "blanks around names": lambda closes: saved(closes.rename(columns=lambda name: f" {name} ").to_csv)(Path("p.csv")),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_windows_from_every_layout(name: str, closes: pd.DataFrame) -> None:
    """Bit for bit, but where a factor rounds."""
    wanted = windows(str(write(closes, Path("reference.parquet"))))
    found = windows(str(LAYOUTS[name](closes)))
    assert found.keys() == wanted.keys() and len(wanted) > 80
    rounds = name in ("CRSP", "Compustat")
    for key, values in wanted.items():
        assert found[key] == (pytest.approx(values, rel=1e-5, abs=1e-7) if rounds else values)


@pytest.mark.parametrize("layout", ["wide", "long", "CRSP", "flat CRSP", "monthly"])
def test_the_same_windows_from_returns(layout: str, closes: pd.DataFrame) -> None:
    """Daily returns are compounded; CRSP's are taken without asking."""
    whole = closes.drop(columns="000004")  # a gap of two months is one return of many, or none
    wanted = windows(str(write(whole, Path("reference.parquet"))))
    returns = whole.pct_change(fill_method=None)
    options: dict[str, Any] = {"returns": "r.csv"}
    rows = long(returns).rename(columns={"adj_close": "ret"})
    if layout == "wide":
        returns.to_csv("r.csv")
    elif layout == "long":
        rows.to_csv("r.csv", index=False)
    elif layout == "CRSP":
        table = rows.rename(columns={"ticker": "permno"}).assign(prc=10.0, cfacpr=1.0).astype({"ret": object})
        first = table.groupby("permno").head(1)[["date", "permno"]].assign(ret="C", prc=10.0, cfacpr=1.0)
        pd.concat([first, table]).to_csv("r.csv", index=False)
        options = {"prices": "r.csv"}
    elif layout == "flat CRSP":
        names = {"ticker": "PERMNO", "date": "DlyCalDt", "ret": "DlyRet"}
        rows.rename(columns=names).assign(DlyPrc=3.0).to_csv("r.csv", index=False)
        options = {"prices": "r.csv"}
    else:
        monthly = whole.resample("ME").last().pct_change(fill_method=None).iloc[1:]
        monthly.to_csv("r.csv")
    found = windows(**options)
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key] == pytest.approx(values, rel=1e-4, abs=1e-6)


def test_one_stock_is_one_stock(closes: pd.DataFrame) -> None:
    yahoo(closes["000001"]).to_csv("AAPL.csv")
    prices = read_prices("AAPL.csv")
    assert prices.tickers == ["AAPL"] and not prices.report.warnings
    np.testing.assert_array_equal(prices.closes[:, 0], closes["000001"].resample("ME").last())
    assert prices.report.facts["taken"] == "adjusted close (Adj Close)"
    yahoo(closes["000001"]).drop(columns="Adj Close").to_csv("KO.csv")
    raw = read_prices("KO.csv")
    np.testing.assert_array_equal(raw.closes[:, 0], closes["000001"].resample("ME").last() * 2)
    assert raw.report.facts["taken"] == "close (Close)" and "splits and dividends" in raw.report.warnings[0]
