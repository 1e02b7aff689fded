"""Price files of every form give the same month-end closes; each rule of cleaning does what it says, and is counted."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from price_files import long, panel, write
from pyarrow import parquet

from lightning_cnn.datamodules.returns import csv_files, table_files
from lightning_cnn.datamodules.returns.file_options import FileOptions
from lightning_cnn.datamodules.returns.price_file import Prices, prices_kept, read_prices
from lightning_cnn.datamodules.returns.price_source import PriceSource
from lightning_cnn.errors import UserError
from lightning_cnn.resume.workers import each


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def month_ends(closes: pd.DataFrame) -> pd.DataFrame:
    """What pandas makes of it."""
    return closes.resample("ME").last()


def assert_same(prices: Prices, closes: pd.DataFrame) -> None:
    assert [str(month) for month in prices.months] == [f"{date:%Y-%m}" for date in closes.index]
    assert sorted(prices.tickers) == sorted(closes.columns)
    np.testing.assert_array_equal(prices.closes, closes[prices.tickers].to_numpy())


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    """Thirty months of seven stocks, of which one is listed late, and one has a gap of two months and then ends."""
    closes = panel(7, "2009-03", "2011-08").round(4)
    closes.iloc[:200, 2] = np.nan
    closes.loc["2010-03":"2010-04", "T03"] = np.nan
    closes.loc["2011-02":, "T03"] = np.nan
    return closes


@pytest.mark.parametrize("name", ["prices.parquet", "prices.csv", "prices.csv.gz"])
@pytest.mark.parametrize("layout", ["wide", "long", "shuffled wide", "shuffled long", "by date"])
@pytest.mark.parametrize("pieces", ["whole", "small pieces"])
def test_every_form_gives_the_same(
    name: str, layout: str, pieces: str, closes: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pieces == "small pieces":
        monkeypatch.setattr(table_files, "CELLS", 1300)
        monkeypatch.setattr(csv_files, "BLOCK_BYTES", 2000)
    table = closes if "wide" in layout else long(closes)
    if layout == "long":
        table = table.sort_values("ticker", kind="stable")
    if "shuffled" in layout:
        table = table.sample(frac=1, random_state=1)
    prices = read_prices(write(table, Path(name)))
    assert_same(prices, month_ends(closes))
    report = prices.report
    assert (report.gaps, report.stopped, report.duplicates, report.nonpositive) == (2, 1, 0, 0)
    assert (report.unsorted > 100) == ("shuffled" in layout) and (report.unsorted == 0) != ("shuffled" in layout)
    assert report.given - report.missing == int(closes.notna().sum().sum())
    assert prices.daily


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Europe/London", "America/New_York"])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_day_is_that_of_its_place(suffix: str, zone: str, layout: str, closes: pd.DataFrame) -> None:
    """Midnight in Tokyo is still the day before in Greenwich: prices would come into the wrong month."""
    moved = closes.tz_localize(zone)
    table = long(moved) if layout == "long" else moved.rename_axis("Date").reset_index()
    path = Path(f"p.{suffix}")
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path, index=False)
    assert_same(read_prices(path), month_ends(closes))


def test_prices_before_1970() -> None:
    days = pd.bdate_range("1964-01-01", "1972-12-31")
    closes = pd.DataFrame({"A": np.arange(1.0, len(days) + 1), "B": 5.0}, index=days)
    prices = read_prices(write(long(closes), Path("old.parquet")))
    assert_same(prices, month_ends(closes))
    assert str(prices.months[0]) == "1964-01" and np.isfinite(prices.closes).all()


def test_a_mean_takes_the_later_price_of_a_day() -> None:
    frame = pd.DataFrame({"date": ["2012-01-02", "2012-01-02", "2012-01-03"], "ticker": "A", "close": [100.0, 10, 20]})
    frame.to_parquet("p.parquet")
    assert read_prices("p.parquet", mean=True).closes.tolist() == [[15.0]]


@pytest.mark.parametrize("form", ["text", "timestamp", "timezone", "number", "month number", "month text", "date32"])
def test_dates_of_every_kind(form: str, closes: pd.DataFrame) -> None:
    monthly = month_ends(closes)
    days = pd.DatetimeIndex(monthly.index)
    kinds = {
        "text": days.strftime("%Y-%m-%d"),
        "timestamp": days + pd.Timedelta(hours=16),
        "timezone": days.tz_localize("UTC"),
        "number": days.strftime("%Y%m%d").astype(int),
        "month number": days.strftime("%Y%m").astype(int),
        "month text": days.strftime("%Y-%m"),
        "date32": days.date,
    }
    table = monthly.reset_index(drop=True)
    table.insert(0, "Date", kinds[form])
    table.to_parquet("p.parquet")
    prices = read_prices("p.parquet")
    assert_same(prices, monthly)
    assert not prices.daily


def test_columns_are_recognised_or_named(closes: pd.DataFrame) -> None:
    table = long(closes)
    table["close"] = 1.0  # the adjusted one wins
    renamed = table.rename(columns={"date": "Caldt", "ticker": "PERMNO", "adj_close": "Adj Close"})
    renamed["PERMNO"] = renamed["PERMNO"].str[1:].astype(int)
    renamed.to_csv("crsp.csv")  # pandas numbers the rows
    assert sorted(read_prices("crsp.csv").tickers) == [str(number) for number in range(7)]
    odd = table.rename(columns={"date": "when", "ticker": "who", "adj_close": "what"}).drop(columns="close")
    odd["when"] = odd["when"].dt.strftime("%Y%m%d").astype(int)
    odd.to_csv("odd.csv", index=False, sep=";")
    assert_same(read_prices("odd.csv", FileOptions("when", "who", "what")), month_ends(closes))
    assert "no column of dates among when, who, what" in refused(lambda: read_prices("odd.csv"))
    assert "`data.ticker_column`" in refused(lambda: read_prices("odd.csv", FileOptions("when")))
    assert "did you mean who" in refused(lambda: read_prices("odd.csv", FileOptions("when", "whoo")))
    assert "no column of prices" in refused(lambda: read_prices("odd.csv", FileOptions("when", "who")))
    assert "is for long files" in refused(
        lambda: read_prices(write(closes, Path("w.csv")), FileOptions(price_column="T01"))
    )
    numbered = closes.reset_index()
    numbered.to_csv("numbered.csv")
    assert_same(read_prices("numbered.csv"), month_ends(closes))
    unnamed = closes.rename_axis(None)
    unnamed.columns = [*unnamed.columns[:-1], "DAY"]  # a real ticker
    unnamed.to_csv("unnamed.csv")
    assert_same(read_prices("unnamed.csv"), month_ends(unnamed))


def test_each_rule_is_applied_and_counted() -> None:
    closes = panel(6, "2010-01", "2010-12")
    closes.iloc[20, 0], closes.iloc[40, 0], closes.iloc[41, 0] = 0.0, -3.0, np.nan
    january, march = closes.index[20], closes.loc["2010-03"].index[-1]
    assert january == closes.loc["2010-01"].index[-1]  # the last price of January is zero: the one before counts
    closes["T01"] = 25.0
    closes["T02"] = np.nan
    closes.loc["2010-05":"2010-06", "T03"] = np.nan
    closes.loc["2010-10":, "T04"] = np.nan
    second = closes.loc[[march]] * 2  # of two prices the later row counts
    table = pd.concat([closes.iloc[100:], closes.iloc[:100], second])
    prices = read_prices(write(table, Path("dirty.csv")))
    assert prices.tickers == ["T00", "T01", "T03", "T04", "T05"]
    by_name = dict(zip(prices.tickers, prices.closes.T, strict=True))
    assert by_name["T00"][0] == pytest.approx(closes.iloc[19, 0], rel=1e-15)
    assert by_name["T05"][2] == pytest.approx(2 * closes.loc[march, "T05"], rel=1e-15)
    assert np.isnan(by_name["T03"][4:6]).all() and np.isfinite(by_name["T03"][6])
    assert np.isnan(by_name["T04"][9:]).all() and np.isfinite(by_name["T04"][8])
    report = prices.report
    given = 6 * (len(closes) + 1)
    assert (report.given, report.nonpositive, report.empty, report.gaps, report.stopped) == (given, 2, 1, 2, 1)
    assert (report.duplicates, report.unsorted, report.unfinished) == (5, 2, 0)
    assert report.unchanged == 0  # its price changed once, in March
    assert report.missing == int(table.isna().sum().sum())
    lines = {name: (count, done) for name, count, done in report.lines()}
    assert lines["duplicates"] == (5, "replaced by the later one in the file") and lines["empty tickers"] == (
        1,
        "dropped: T02",
    )
    assert read_prices(write(closes, Path("clean.csv"))).report.unchanged == 1


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_names_that_come_twice_or_contain_others(suffix: str) -> None:
    columns = {"date": ["2020-01-31", "2020-02-28"], "BRK": [1.0, 2.0], "BRK.B": [3.0, 4.0]}
    table = pa.table([*columns.values(), [5.0, None]], [*columns, "BRK"])
    if suffix == "parquet":
        parquet.write_table(table, "twice.parquet")
    else:
        Path("twice.csv").write_text("date,BRK,BRK.B,BRK\n2020-01-31,1,3,5\n2020-02-28,2,4,\n")
    prices = read_prices(f"twice.{suffix}")
    assert prices.tickers == ["BRK", "BRK.B"]
    assert prices.closes.tolist() == [[5, 3], [2, 4]]
    assert prices.report.duplicates == 1


def test_a_month_that_is_not_over_is_left_out(closes: pd.DataFrame) -> None:
    cut = closes.loc[:"2011-08-12"]
    prices = read_prices(write(cut, Path("cut.parquet")))
    assert str(prices.months[-1]) == "2011-07" and prices.report.unfinished == 1
    nearly = read_prices(write(closes.loc[:"2011-08-29"], Path("nearly.parquet")))
    assert str(nearly.months[-1]) == "2011-08" and nearly.report.unfinished == 0
    first_days = month_ends(closes)
    first_days.index = first_days.index.to_period("M").start_time.rename("date")
    assert str(read_prices(write(first_days, Path("first.parquet"))).months[-1]) == "2011-08"


def test_means_and_values_that_are_not_positive(closes: pd.DataFrame) -> None:
    table = long(closes)
    table["adj_close"] -= 100
    prices = read_prices(write(table, Path("p.parquet")), positive=False, mean=True)
    wanted = (closes - 100).resample("ME").mean()[prices.tickers]
    np.testing.assert_allclose(prices.closes, wanted.to_numpy(), rtol=1e-12, atol=1e-12)


def test_daily_prices_are_kept_where_asked_for(closes: pd.DataFrame) -> None:
    prices = read_prices(write(long(closes).sample(frac=1, random_state=0), Path("p.parquet")), keep_days=True)
    assert prices.days is not None and prices.day_closes is not None
    assert (prices.days == closes.index.to_numpy().astype("datetime64[D]")).all()
    np.testing.assert_array_equal(prices.day_closes, closes[prices.tickers].to_numpy())


def test_jumps_are_named_and_tickers_left_out() -> None:
    closes = panel(4, "2010-01", "2010-12")
    closes.loc["2010-03", "T02"] *= 100
    closes.loc["2010-08":, "T01"] /= 20
    prices = read_prices(write(closes, Path("p.parquet")), keep_days=True)
    assert (prices.report.jumps, prices.report.jumping) == (3, ["T02", "T01"])
    assert ("jumps", 3, "tenfold within a month; wrong prices? T02, T01") in prices.report.lines()
    others = prices.without(["T02"])
    assert others.tickers == ["T00", "T01", "T03"] and others.day_closes is not None
    np.testing.assert_array_equal(others.closes, prices.closes[:, [0, 1, 3]])
    assert others.day_closes.shape == (len(closes), 3)
    assert "`data.leave_out` t01: the prices have no such ticker; did you mean T01" in refused(
        lambda: prices.without(["t01"])
    )
    assert "exclude fewer" in refused(lambda: others.without(others.tickers))


def test_an_infinite_price_costs_itself_alone() -> None:
    closes = panel(3, "2010-01", "2010-12")
    wrong = closes.copy()
    wrong.loc["2010-04-07", "T01"] = np.inf
    wrong.loc["2010-05-31", "T01"] = -np.inf
    for name in ("p.parquet", "p.csv"):
        prices = read_prices(write(wrong, Path(name)))
        assert prices.report.mistakes == {"infinite": 2} and prices.report.by_ticker["infinite"] == {"T01": 2}
        closes.loc["2010-05-31", "T01"] = np.nan
        assert_same(prices, month_ends(closes))


@pytest.mark.parametrize(
    ("name", "content", "telling"),
    [
        ("none.csv", None, "there is no price file none.csv"),
        ("folder", "folder", "there is no price file in the folder folder"),
        ("empty.csv", "", "can't be read as CSV"),
        ("header.csv", "date,A,B\n", "none of its 2 tickers has a price"),
        ("nodates.csv", "A,B\n1.5,2.5\n", "no column of dates among A, B"),
        ("odd.csv", "date,A\nyesterday,1\n", "is a date such as 2017-12-29"),
        ("late.csv", "date,A\n2020-01-31,1\n" + "2020-02-28,2\n" * 3 + "never,3\n", "is a date such as"),
        ("hole.csv", "date,A\n2020-01-31,1\n,2\n", "is a date such as"),
        ("number.csv", "date,A\n12,1\n", "is a date such as"),
        ("text.csv", "date,A,B\n2020-01-31,1,two\n", "the column 'B' holds text, not prices"),
        (
            "text_later.csv",
            "date,A\n" + "2020-01-31,1\n" * 9 + "2020-02-28,x\n",
            "1 of 10 cells hold text, not numbers, such as those of A",
        ),
        ("only.csv", "date\n2020-01-31\n", "no column of prices, only 'date'"),
        ("nan.csv", "date,A,B\n2020-01-31,,\n2020-02-28,,\n", "none of its 2 tickers has a price"),
        ("zero.csv", "date,A\n2020-01-31,0\n2020-02-28,-1\n", "none of its 1 tickers has a price"),
        ("ticker.csv", "date,ticker,close\n2020-01-31,A,x\n", "the column 'close' holds no numbers"),
        ("ragged.csv", "date,A\n2020-01-31,1,2\n", "can't be read as CSV"),
        ("broken.parquet", "PAR1 and no more", "can't be read as Parquet"),
        ("words.txt", "once upon a time\n", "no column of dates"),
        ("prices.xlsx", "PK", "can't be read as Excel"),
    ],
)
def test_files_that_are_no_prices(name: str, content: str | None, telling: str) -> None:
    if content == "folder":
        Path(name).mkdir()
    elif content is not None:
        Path(name).write_text(content)
    assert telling in refused(lambda: read_prices(name))


def parses(path: str) -> tuple[int, int]:
    """Reads a file; this process, and how often it has parsed it now."""
    with patch("lightning_cnn.datamodules.returns.price_reading.PriceSource", wraps=PriceSource) as source:
        read_prices(path)
        return os.getpid(), source.call_count


def test_a_process_reads_its_prices_once(closes: pd.DataFrame) -> None:
    path = str(write(closes, Path("p.parquet")))
    counts: Counter[int] = Counter()
    for _, (process, count) in each(parses, [path] * 6, 2, prices_kept):
        counts[process] += count
    assert counts and {*counts.values()} == {1}


def test_prices_are_kept_within_the_block_alone_and_as_long_as_their_file_is_the_same(closes: pd.DataFrame) -> None:
    path = write(closes, Path("p.parquet"))
    with prices_kept():
        first = read_prices(path)
        assert read_prices(str(path.absolute())) is first
        assert read_prices(path, keep_days=True) is not first
        write(closes.iloc[:-30], path)
        assert len(read_prices(path).months) < len(first.months)
        path.unlink()
        assert "p.parquet" in refused(lambda: read_prices(path))
    write(closes, path)
    assert_same(read_prices(path), month_ends(closes))
    assert read_prices(path) is not read_prices(path)
