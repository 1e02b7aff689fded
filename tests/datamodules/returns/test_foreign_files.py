"""Price files from elsewhere: names of other alphabets, thousands and decimals, times of a zone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from price_files import long, panel

from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.datamodules.returns.file_options import FileOptions
from lightning_cnn.datamodules.returns.price_file import read_prices
from lightning_cnn.datamodules.returns.vendors import plain
from lightning_cnn.datamodules.returns.windows import ReturnWindows
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.predictions import month_of


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    """Four years of three stocks, daily."""
    return panel(3, "2009-01", "2012-12").round(4)


def test_tickers_of_any_alphabet(closes: pd.DataFrame) -> None:
    names = ["삼성전자", "SK하이닉스", "Société Générale"]
    closes.set_axis(names, axis=1).to_csv("p.csv")
    prices = read_prices("p.csv")
    assert sorted(prices.tickers) == sorted(names)
    last = closes.resample("ME").last().set_axis(names, axis=1)
    np.testing.assert_allclose(prices.closes, last[prices.tickers])


def test_a_column_of_returns_of_any_alphabet_is_used_once(closes: pd.DataFrame) -> None:
    returns = closes.resample("ME").last().pct_change().iloc[1:]
    table = long(returns).set_axis(["date", "ticker", "收益率"], axis=1)
    table.to_csv("r.csv", index=False)
    prices = read_prices("r.csv", FileOptions(price_column="收益率", returns=True))
    assert prices.returns is not None
    np.testing.assert_allclose(prices.returns[1:], returns[prices.tickers], atol=1e-9)


@pytest.mark.parametrize("layout", ["long", "one stock"])
def test_row_numbers_without_a_name_are_no_returns(layout: str, closes: pd.DataFrame) -> None:
    """As pandas writes them where nobody says `index=False`."""
    returns = closes.resample("ME").last().pct_change().iloc[1:]
    table = long(returns).set_axis(["date", "ticker", "ret"], axis=1)
    if layout == "one stock":
        table = table[table["ticker"] == "T00"].drop(columns="ticker").reset_index(drop=True)
    table.to_csv("r.csv")
    assert Path("r.csv").read_text().startswith(",date,")
    prices = read_prices("r.csv", FileOptions(returns=True))
    expected = returns[prices.tickers] if layout == "long" else returns[["T00"]]
    assert prices.returns is not None
    np.testing.assert_allclose(prices.returns[1:], expected, atol=1e-9)


WON = "date,A,B\n" + "".join(
    f'{year}-{month:02}-28,"{1000 + 7 * month:,}",{980 - month}\n' for year in (2010, 2011) for month in range(1, 13)
)


def test_numbers_that_decide_nothing_are_asked_about() -> None:
    Path("won.csv").write_text(WON)
    with pytest.raises(UserError, match=r"1,007 can be 1\.007 or 1007.*`data.decimal` comma or point"):
        read_prices("won.csv")
    prices = read_prices("won.csv", FileOptions(decimal="point"))
    assert prices.closes[:2].tolist() == [[1007.0, 979.0], [1014.0, 978.0]]
    assert read_prices("won.csv", FileOptions(decimal="comma")).closes[0].tolist() == [1.007, 979.0]
    data = MonthlyReturns("won.csv", decimal="point", lags=3)
    assert data.read().closes[0, 0] == 1007.0
    with pytest.raises(UserError, match=r"`data\.decimal` 'dot': expected one of comma, point"):
        MonthlyReturns("won.csv", decimal="dot")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "values"),
    [
        ("1,234,000", "71,500", (1234000.0, 71500.0)),
        ("1,020.5", "71,500", (1020.5, 71500.0)),
        ("101.25", "71,500", (101.25, 71500.0)),
        ("0,125", "71,500", (0.125, 71.5)),
        ("12,5", "71,500", (12.5, 71.5)),
        ("1.234.000", "71.500", (1234000.0, 71500.0)),
        ("1.234,5", "71,500", (1234.5, 71.5)),
        ("71.500", "12.250", (71.5, 12.25)),
    ],
)
def test_numbers_that_decide(first: str, second: str, values: tuple[float, float]) -> None:
    rows = [f"{year}-{month:02}-28;{first};{second}" for year in (2010, 2011) for month in range(1, 13)]
    Path("p.csv").write_text("\n".join(["date;A;B", *rows, ""]))
    assert read_prices("p.csv").closes[3].tolist() == list(values)


MONTHS = [f"{year}.{month:02}" for year in (2010, 2011) for month in range(1, 13)]


def test_what_does_not_decide() -> None:
    """Dates with a point, and volumes that nobody needs."""
    Path("p.csv").write_text("\n".join(["date;A;B", *(f"{month};12,345;0,{month[-1]}25" for month in MONTHS), ""]))
    assert read_prices("p.csv").closes[3].tolist() == [12.345, 0.425]
    rows = [f'{month}.28,{1850 + place},"12,300"' for place, month in enumerate(MONTHS)]
    Path("v.csv").write_text("\n".join(["Date,Close,Volume", *rows, ""]))
    assert read_prices("v.csv").closes[:2, 0].tolist() == [1850.0, 1851.0]


def test_a_file_of_a_folder_that_decides_nothing_is_not_left_out() -> None:
    Path("folder").mkdir()
    for name, price in (("A", "12,5"), ("B", "12,345"), ("C", "0,5")):
        rows = [f"{month}.28;{price}" for month in MONTHS]
        Path("folder", f"{name}.csv").write_text("\n".join(["date;close", *rows, ""]))
    with pytest.raises(UserError, match=r"B\.csv: 12,345 can be 12\.345 or 12345"):
        read_prices("folder")
    assert read_prices("folder", FileOptions(decimal="comma")).closes[0].tolist() == [12.5, 12.345, 0.5]


def test_the_decimal_of_a_channel(closes: pd.DataFrame) -> None:
    closes.to_csv("p.csv")
    rows = [f'{year}-{month:02}-28,"{month},345"' for year in range(2009, 2013) for month in range(1, 13)]
    Path("vix.csv").write_text("\n".join(["date,vix", *rows, ""]))
    for decimal, first in (("comma", 1.345), ("point", 1345.0)):
        channel: Any = {"file": "vix.csv", "change": False, "decimal": decimal}
        data = MonthlyReturns("p.csv", lags=3, month_dummies=False, scale=False, clip=0, channels={"vix": channel})
        assert data.read_panel().newest_first[1, 0, -1] == pytest.approx(first)
    with pytest.raises(UserError, match=r'`data\.channels` vix: .* add "decimal": "comma" or "point" to the channel'):
        MonthlyReturns("p.csv", lags=3, channels={"vix": {"file": "vix.csv"}}).read_panel()


def test_names_of_columns_in_two_alphabets() -> None:
    assert [*map(plain, ("收盘价(Close)", "日期Date", "Adj. Close", "5. adjusted close", "收益率", "--"))] == [
        "close", "date", "adjclose", "adjustedclose", "收益率", "",
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["%d/%m/%Y", "%m/%d/%Y"])
@pytest.mark.parametrize("says", ["nothing", "the format", "that of the days"])
def test_times_of_a_zone_in_any_order(order: str, says: str, closes: pd.DataFrame) -> None:
    """15:00 in Greenwich is midnight in Tokyo: the day after."""
    utc = closes.index.tz_localize("Asia/Tokyo").tz_convert("UTC")
    closes.set_axis(utc.strftime(f"{order} %H:%M")).rename_axis("date").to_csv("p.csv")
    formats = {"nothing": None, "the format": f"{order} %H:%M", "that of the days": order}
    prices = read_prices("p.csv", FileOptions(time_zone="Asia/Tokyo", date_format=formats[says]))
    last = closes.resample("ME").last()
    assert [str(month) for month in prices.months] == [f"{day:%Y-%m}" for day in last.index]
    np.testing.assert_allclose(prices.closes, last[prices.tickers])
    assert prices.report.unsorted == 0


def test_the_end_of_a_day_is_no_midnight_of_the_east() -> None:
    """However the ends of months fall on weekends: those of 2023-10 to 2024-04 more often than the days after."""
    months = pd.period_range("2023-10", "2024-04", freq="M")
    expected = [f"{month}" for month in months]
    assert [str(month) for month in month_of(pd.Series(months))] == expected
    assert [str(month) for month in month_of(pd.Series(months.to_timestamp(how="end")))] == expected
    last = pd.Series(months.to_timestamp(how="end").strftime("%Y-%m-%d 23:59:59"))
    assert [str(month) for month in month_of(last)] == expected


def test_fewer_prices_than_a_window_are_none() -> None:
    none = np.empty(0, dtype=np.int64)
    windows = ReturnWindows(torch.zeros(2, 1, 18), 500, 24, none, none, np.empty(0), month_dummies=True)
    assert len(windows) == 0 and windows.shape == (2, 24)
