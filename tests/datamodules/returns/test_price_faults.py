"""What is wrong in price files that people have, and what is made of it; numbers are recomputed with pandas."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from price_files import long, panel, write

from lightning_cnn.cli import main
from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.datamodules.returns.file_options import FileOptions
from lightning_cnn.datamodules.returns.price_file import read_prices
from lightning_cnn.errors import UserError


def refused(path: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_prices(path, FileOptions(**options))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    """Four years of twelve stocks."""
    return panel(12, "2009-01", "2012-12").round(4)


@pytest.mark.parametrize("layout", ["wide.parquet", "long.csv", "monthly.csv"])
def test_a_price_of_zero_to_the_end_is_a_bankruptcy(layout: str, closes: pd.DataFrame) -> None:
    table = closes.rename(columns={"T00": "GE"})
    table.loc["2012-06-15":, "GE"] = 0.0
    table.loc["2012-03-06":"2012-03-08", "T01"] = 0.0  # prices follow: these are missing
    if "monthly" in layout:
        table = table.resample("ME").last()
    path = write(long(table) if "long" in layout else table, Path(layout))
    prices = read_prices(path)
    june = int(np.flatnonzero(prices.months == np.datetime64("2012-06"))[0])
    ge = prices.tickers.index("GE")
    returns = prices.changes()
    assert returns[june, ge] == -1.0 and np.isnan(returns[june + 1 :, ge]).all()
    assert prices.report.bankrupt == ["GE"] and prices.stale is not None and prices.stale[june, ge]
    if "monthly" not in layout:
        assert prices.report.by_ticker["zero"] == {"T01": 3}
    shumway = read_prices(path, FileOptions(delisting_return=-0.3))
    last = closes.loc[: "2012-06-14" if "monthly" not in layout else "2012-05", "T00"].iloc[-1]
    before = closes.loc[:"2012-05", "T00"].iloc[-1]
    assert shumway.changes()[june, ge] == pytest.approx(0.7 * last / before - 1, rel=1e-12)
    kept = read_prices(path, FileOptions(delisting_return=0.0))
    assert np.isnan(kept.closes[june + 1 :, ge]).all() and not (kept.closes == 0).any()
    data = MonthlyReturns(str(path), lags=3, test_start="2012-06", test_end="2012-08", val_months=3)
    data.setup("fit")
    data.setup("test")
    frame = data.frame("test")
    assert frame[frame["ticker"] == "GE"]["outcome"].tolist() == [-1.0]
    found = data.description()
    assert "GE" in found["bankrupt tickers"]


def test_a_file_padded_with_zeros_is_asked_about(closes: pd.DataFrame) -> None:
    table = closes.copy()
    table.loc["2012-06-15":, table.columns[:5]] = 0.0
    write(table, Path("p.csv"))
    assert "5 of 12 tickers are 0 to the end" in refused("p.csv") and "`data.delisting_return`" in refused("p.csv")
    assert len(read_prices("p.csv", FileOptions(delisting_return=-1)).report.bankrupt) == 5


def test_crsp_without_asking() -> None:
    """`ret` and `dlret` where they are, else the price without its sign over the factor; zero is no price."""
    rows = [
        ("2010-01-29", 10107, 100.0, "0.05", 1.0, ""),
        ("2010-02-26", 10107, -50.5, "0.01", 0.5, ""),
        ("2010-03-31", 10107, 0.0, "C", 0.5, ""),
        ("2010-04-30", 10107, 52.0, "0.02", 0.5, "-0.5"),
        ("2010-04-30", 14593, 7.0, "0.03", 1.0, ""),
        ("2010-05-28", 14593, 0.0, "-99.0", 1.0, ""),
    ]
    pd.DataFrame(rows, columns=["date", "permno", "prc", "ret", "cfacpr", "dlret"]).to_csv("crsp.csv", index=False)
    with pytest.raises(UserError, match="returns are below -100 %"):  # one of six is more than a twentieth
        read_prices("crsp.csv")
    frame = pd.DataFrame(rows[:-1], columns=["date", "permno", "prc", "ret", "cfacpr", "dlret"])
    frame.to_csv("crsp.csv", index=False)
    found = read_prices("crsp.csv")
    assert found.report.facts["taken"] == "returns (ret, dlret)" and "CRSP" in found.report.facts["layout"]
    returns = pd.DataFrame(found.changes(), found.months.astype(str), found.tickers)
    assert returns["10107"].tolist() == pytest.approx([np.nan, 0.05, 0.01, np.nan, 1.02 * 0.5 - 1], nan_ok=True)
    frame.drop(columns=["ret", "dlret"]).to_csv("prices.csv", index=False)
    prices = read_prices("prices.csv")
    assert prices.report.facts["taken"] == "close and factor (prc, cfacpr)"
    assert prices.closes[:, prices.tickers.index("10107")].tolist() == pytest.approx(
        [100, 101, np.nan, 104], nan_ok=True
    )
    assert prices.report.by_ticker["zero"] == {"10107": 1} and not prices.report.bankrupt


def test_a_ticker_of_crsp_is_no_identifier() -> None:
    """It passes from one company to another; the permno does not."""
    months = pd.date_range("2010-01-31", periods=4, freq="ME")
    frame = pd.DataFrame({"date": months, "TICKER": "A", "PERMNO": [1, 1, 2, 2], "PRC": [5.0, 6.0, 70.0, 71.0]})
    frame.to_csv("crsp.csv", index=False)
    assert read_prices("crsp.csv").tickers == ["1", "2"]


def test_prices_are_no_returns(closes: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"returns are above 100 %: give fractions \(0.01 for one per cent\), not"):
        read_prices(write(closes, Path("p.csv")), FileOptions(returns=True))


def test_single_files_of_a_folder_cost_themselves_alone(closes: pd.DataFrame) -> None:
    """The first one, too; where most are unlike, the folder is refused with what decides."""
    folder = Path("stocks")
    folder.mkdir()
    for name in closes.columns[:5]:
        frame = pd.DataFrame({"Date": closes.index, "Open": 1.0, "Close": closes[name], "Volume": 3})
        frame.to_csv(folder / f"{name}.csv", index=False)
    (folder / "A.csv").write_text("No data")
    (folder / "notes.md").write_text("none of these is a price")
    found = MonthlyReturns(prices="stocks")
    assert "2 files were skipped, such as notes.md: no table" in found.describe()["value"].tolist()
    ends = found.describe(by_ticker=True).set_index("ticker")["end"]
    assert [*ends.index[ends == ""]] == [*closes.columns[:5]]
    assert ends["A.csv"].startswith("file skipped: stocks/A.csv has no column of dates")
    pd.read_csv(folder / "T00.csv").assign(**{"Adj Close": 1.0}).to_csv(folder / "T00.csv", index=False)
    message = refused("stocks")
    assert "5 of 6 files can't be read like T00.csv" in message and "`data.price_column`" in message
    assert read_prices("stocks", FileOptions(price_column="Close")).tickers == [*closes.columns[:5]]


def test_tables_on_their_side_and_quarters(closes: pd.DataFrame) -> None:
    closes.iloc[:50].T.to_csv("p.csv")
    assert "has dates as the names of its columns" in refused("p.csv")
    quarters = closes.resample("QE").last()
    quarters.set_axis([f"{day.year}Q{day.quarter}" for day in quarters.index]).rename_axis("date").to_csv("q.csv")
    report = read_prices("q.csv").report
    assert report.facts["dates"] == "date, YYYY-Qn, quarterly"
    assert "windows need a price in each month, and there are months without any" in report.warnings
    closes.loc["2010-01":"2010-01-15"].to_csv("one.csv")
    facts = read_prices("one.csv").report.facts
    assert facts["months"] == "2010-01 to 2010-01, 1 month" and facts["last month"].endswith("it is the only one")


def test_impossible_returns_are_counted() -> None:
    months = pd.date_range("2010-01-31", periods=40, freq="ME")
    frame = pd.DataFrame({"date": months, "permno": 1, "ret": 0.01, "prc": 5.0})
    frame.loc[7, "ret"] = -66.0  # CRSP's number for a missing one
    frame.to_parquet("crsp.parquet")
    found = read_prices("crsp.parquet")
    assert found.report.mistakes == {"below -100 %": 1} and np.isnan(found.changes()[8, 0])
    frame.assign(ret=np.where(np.arange(40) % 3 == 0, -2.0, 1.5)).to_parquet("percent.parquet")
    assert "not per cent" in refused("percent.parquet")


@pytest.mark.parametrize("form", ["wide.parquet", "long.csv", "by date.parquet", "monthly.csv"])
@pytest.mark.parametrize("ratio", [2, 4, 7, 1 / 10])
def test_splits_are_found(form: str, ratio: float, closes: pd.DataFrame) -> None:
    if "monthly" in form and ratio == 2:
        pytest.skip("a half within a month is no certain split")
    table = closes.copy()
    table.loc["2010-08-13":, "T03"] /= ratio
    if "monthly" in form:
        table = table.resample("ME").last()
    file = long(table) if "long" in form or "by date" in form else table
    found = read_prices(write(file, Path(form))).report.splits
    day = "2010-08-31" if "monthly" in form else "2010-08-13"
    if "monthly" in form:  # a month's return hides whether it was seven or six for one
        assert len(found) == 1 and found[0].startswith(f"T03 {day} (about ")
    else:
        assert found == [f"T03 {day} ({f'{ratio:g}:1' if ratio > 1 else '1:10'})"]


def test_a_crash_is_no_split(closes: pd.DataFrame) -> None:
    """Prices fall by half in a day, and swing afterwards, or come back."""
    table = closes.copy()
    swings = np.exp(np.random.default_rng(0).normal(0, 0.12, len(table.loc["2010-08-13":])).cumsum())
    table.loc["2010-08-13":, "T03"] *= 0.5 * swings
    table.loc["2011-02-01":"2011-02-02", "T04"] *= 0.5
    assert read_prices(write(table, Path("p.parquet"))).report.splits == []


@pytest.mark.parametrize(
    ("end", "month", "why"),
    [
        ("2012-10-24", "2012-09", "5 weekdays follow"),
        ("2012-10-29", "2012-10", "its last date is 2012-10-29"),
        ("2012-10-31", "2012-10", "its last date is 2012-10-31"),
        ("2012-11-01", "2012-10", "21 weekdays follow"),
    ],
)
def test_the_last_month_is_finished_or_not(end: str, month: str, why: str, closes: pd.DataFrame) -> None:
    prices = read_prices(write(closes.loc[:end], Path("p.parquet")))
    assert str(prices.months[-1]) == month and why in prices.report.facts["last month"]
    forced = read_prices("p.parquet", FileOptions(last_month="finished"))
    assert str(forced.months[-1]) == end[:7] and "as you said" in forced.report.facts["last month"]
    shorter = read_prices("p.parquet", FileOptions(last_month="unfinished"))
    assert shorter.months[-1] == forced.months[-1] - 1


def test_later_dates_finish_a_month(closes: pd.DataFrame) -> None:
    table = closes.loc[:"2012-11-02"].copy()
    table.loc["2012-10-20":, :] = np.nan
    prices = read_prices(write(table, Path("p.csv")))
    assert str(prices.months[-1]) == "2012-10" and "later dates" in prices.report.facts["last month"]


def test_one_rule_for_halted_stocks(closes: pd.DataFrame) -> None:
    """Halted from 4 to 31 May: not bought for June, in prediction, test and training."""
    table = closes.copy()
    table.loc["2012-05-04":"2012-05-31", "T05"] = np.nan
    path = str(write(table, Path("p.parquet")))
    write(table.loc[:"2012-05"], Path("then.parquet"))
    tested = MonthlyReturns(path, lags=3, test_start="2012-06", test_end="2012-07", val_months=3)
    tested.setup("fit")
    tested.setup("test")
    frame = tested.frame("test")
    trained = MonthlyReturns(path, lags=3, val_months=2)
    trained.setup("fit")
    rows = trained.frame("train")
    _, ranked, month = MonthlyReturns("then.parquet", lags=3, val_months=2).latest_windows()
    assert str(month) == "2012-06" and "T05" not in ranked and len(ranked) == 11
    for each in (frame, pd.concat([rows, trained.frame("val"), frame])):
        june = each[each["date"] == "2012-06-30"]
        assert set(june["ticker"]) in (set(ranked), set())
    assert "T05" in set(frame[frame["date"] == "2012-07-31"]["ticker"])


def test_channels_are_counted(closes: pd.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    write(closes[closes.columns[:8]] * 2, Path("twin.parquet"))
    path = str(write(closes, Path("p.parquet")))
    data = MonthlyReturns(path, lags=3, val_months=3, channels={"twin": {"file": "twin.parquet"}})
    data.setup("fit")
    assert "channel twin: 8 of 12 tickers, 47 of 48 months each; " in caplog.text
    assert data.description()["channel twin"].startswith("8 of 12 tickers")
    quarters = closes.resample("QE").last()
    write(quarters.rename_axis("date"), Path("eps.parquet"))
    other = MonthlyReturns(path, lags=3, val_months=3, channels={"eps": {"file": "eps.parquet", "change": False}})
    with pytest.raises(UserError, match="the channel eps has values for 12 of 12 tickers, 16 of 48 months each"):
        other.setup("fit")


def test_dates_with_two_readings_are_asked_about(closes: pd.DataFrame) -> None:
    monthly = closes.resample("MS").first()
    monthly.set_axis(monthly.index.strftime("%d/%m/%Y")).rename_axis("date").to_csv("p.csv")
    message = refused("p.csv")
    assert "DD/MM/YYYY or MM/DD/YYYY" in message and "`data.date_format`" in message
    prices = read_prices("p.csv", FileOptions(date_format="%d/%m/%Y"))
    np.testing.assert_array_equal(prices.closes, monthly[prices.tickers])
    days = monthly.index.tz_localize("Asia/Tokyo").tz_convert("UTC")
    monthly.set_axis(days).rename_axis("date").to_csv("tokyo.csv")
    assert "`data.time_zone`" in refused("tokyo.csv")
    tokyo = read_prices("tokyo.csv", FileOptions(time_zone="Asia/Tokyo"))
    assert [str(month) for month in tokyo.months] == [f"{day:%Y-%m}" for day in monthly.index]
    assert "no such time zone" in refused("tokyo.csv", time_zone="Asia/Tokio")
    assert "not a format" in refused("p.csv", date_format="%Q")


def test_two_readings_of_columns(closes: pd.DataFrame) -> None:
    closes[["T00", "T01"]].set_axis(["Close", "XYZ"], axis=1).to_csv("p.csv")
    assert "`data.layout` one_stock or wide" in refused("p.csv")
    assert read_prices("p.csv", FileOptions(layout="wide")).tickers == ["Close", "XYZ"]
    assert read_prices("p.csv", FileOptions(layout="one_stock")).tickers == ["p"]
    closes[["T00", "T01"]].set_axis(["LOW", "AAPL"], axis=1).to_csv("low.csv")  # Lowe's
    assert read_prices("low.csv").tickers == ["LOW", "AAPL"]


def test_single_mistakes_cost_themselves_alone(closes: pd.DataFrame) -> None:
    text = long(closes).to_csv(index=False).splitlines()
    wanted = read_prices(write(long(closes), Path("clean.csv")))
    text[100] = text[100].rpartition(",")[0] + ",n.a."
    text[200] += ",7"
    text[300] = "yesterday," + text[300].partition(",")[2]
    text[400] = text[400].replace(",T", ",,").replace(",,0", ",,", 1)
    Path("dirty.csv").write_text("\n".join(text))
    found = read_prices("dirty.csv")
    assert found.report.mistakes["unreadable cells"] == 1 and found.report.mistakes["rows without date"] == 1
    assert found.report.mistakes["ragged rows"] + found.report.mistakes["rows without ticker"] >= 1
    same = [found.tickers.index(ticker) for ticker in wanted.tickers]
    np.testing.assert_array_equal(found.closes[:, same], wanted.closes)


def test_the_description_without_training(closes: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    table = closes.copy()
    table.loc["2011-01":"2011-02", "T01"] = np.nan
    path = write(table, Path("p.csv"))
    frame = MonthlyReturns(str(path)).describe().set_index("item")["value"]
    assert frame["layout"].startswith("wide") and frame["dates"] == "date, YYYY-MM-DD, daily"
    assert frame["months"] == "2009-01 to 2012-12, 48 months" and frame["gaps"].startswith("2 ")
    tickers = MonthlyReturns(str(path)).describe(by_ticker=True).set_index("ticker")
    assert tickers.loc["T01", ["first", "last", "months", "gaps"]].tolist() == ["2009-01", "2012-12", 46, 2]
    assert main(["show", "--data.prices", str(path)]) == 0
    out = capsys.readouterr().out
    assert "2009-01 to 2012-12, 48 months" in out and not [*Path().glob("*.png")]
    assert main(["show", "--data.prices", str(path), "--data.lags", "3", "--output", "windows.png"]) == 0
    assert Path("windows.png").is_file()
    assert main(["show", "--data.prices", "p.csv", "--data.returns", "p.csv"]) == 2
    assert "--data.prices FILE, or --data.returns FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "telling"),
    [
        ("p.pkl", b"\x80\x04\x95\x00\x00garbage\x00", "can't be read as CSV"),
        ("p.zip", b"PK\x03\x04nothing", "can't be read as CSV"),
        ("p.feather", b"ARROW1nothing", "can't be read as Feather"),
        ("p.xlsx", b"no sheet", "can't be read as Excel"),
        ("p.csv", b"a,b\n1,2\n", "no column of dates"),
    ],
)
def test_files_of_no_use(name: str, content: bytes, telling: str) -> None:
    Path(name).write_bytes(content)
    assert telling in refused(name)
