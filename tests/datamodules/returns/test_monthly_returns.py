"""Windows of monthly returns: what is in them, and what is not."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from price_files import dirty_panel, long, panel, write
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lightning_cnn.cli import main
from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.datamodules.returns import windows as return_windows
from lightning_cnn.datamodules.returns.price_file import prices_kept
from lightning_cnn.errors import UserError
from lightning_cnn.resume.checkpoint_file import data_state

PARTS = ("train", "val", "test")
SPLIT: dict[str, Any] = {"test_start": "2012-01", "val_months": 6}


def returns(closes: pd.DataFrame, **options: Any) -> MonthlyReturns:
    """The data of some prices, all parts read."""
    path = Path(f"prices_{len(list(Path().glob('prices_*')))}.parquet")
    data = MonthlyReturns(str(write(closes, path)), **{**SPLIT, **options})
    for stage in ("fit", "test"):
        data.setup(stage)
    return data


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def rows(data: MonthlyReturns, part: str) -> pd.DataFrame:
    """The frame of a part with the windows beside it."""
    windows, outcomes, months = data.arrays(part)
    frame = data.frame(part)
    assert (frame.date.dt.to_period("M").astype("int64").to_numpy() == months).all()
    np.testing.assert_array_equal(frame.outcome.to_numpy(), outcomes)
    return frame.assign(window=[*windows], month=frame.date.dt.strftime("%Y-%m"))


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    """Thirty stocks over seven years."""
    return panel()


@pytest.fixture(scope="module")
def dirty() -> pd.DataFrame:
    """Of them one is listed late, one has a gap, one dies in training, one in the test, one is frozen for a while."""
    return dirty_panel()


# what is in a window


def test_a_window_is_what_a_loop_makes_of_it(closes: pd.DataFrame) -> None:
    data = returns(closes, lags=5, clip=0, scale=False, year_dummies=True, train_start="2008-01", test_end="2012-12")
    changes = closes.resample("ME").last().pct_change().astype(np.float32)
    assert (data.num_classes, data.in_channels, data.lags, data.window_length) == (1, 1, 5, 5 + 12 + 5)
    for part in PARTS:
        found = rows(data, part)
        for _, row in found.iloc[:: len(found) // 40].iterrows():
            place = changes.index.get_loc(row.date)
            np.testing.assert_array_equal(row.window[0, :5], changes[row.ticker].iloc[place - 5 : place][::-1])
            assert row.outcome == changes[row.ticker].iloc[place]
            assert row.window[0, 5:17].tolist() == [month == row.date.month for month in range(1, 13)]
            assert row.window[0, 17:].tolist() == [year == row.date.year for year in range(2008, 2013)]
    assert list(found.groupby("month").size()) == [30] * 12
    assert found.date.is_monotonic_increasing and found.ticker.iloc[:30].is_monotonic_increasing


def test_clipping_and_scaling_are_those_of_the_training_months(closes: pd.DataFrame) -> None:
    plain, scaled = returns(closes, clip=0, scale=False, lags=6), returns(closes, clip=0.05, lags=6)
    raw, cut = ({part: data.arrays(part)[0][:, 0, :6] for part in PARTS} for data in (plain, scaled))
    low, high = np.quantile(raw["train"].astype(np.float64), [0.05, 0.95], axis=0)
    clipped = raw["train"].astype(np.float64).clip(low, high)
    mean, std = clipped.mean(0), clipped.std(0)
    for part in PARTS:
        np.testing.assert_allclose(cut[part], (raw[part].clip(low, high) - mean) / std, atol=2e-5)
        np.testing.assert_array_equal(plain.arrays(part)[1], scaled.arrays(part)[1])  # outcomes are as they are
    assert returns(closes, recipe="book").chosen["scale"] is False


def test_batches_cut_out_one_by_one_are_the_finished_ones(dirty: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = returns(dirty, lags=12)
    monkeypatch.setattr(return_windows, "IN_MEMORY", 0)
    cut = returns(dirty, lags=12)
    for part in PARTS:
        pairs = zip(finished.ordered_batches(part), cut.ordered_batches(part), strict=True)
        assert all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
        windows, outcomes, months = next(iter(cut.ordered_batches(part)))
        assert (windows.dtype, outcomes.dtype, months.dtype) == (torch.float32, torch.float32, torch.int64)
        assert windows.shape[1:] == (1, 24) and outcomes.shape == months.shape == windows.shape[:1]
    views = cut.dataset("train")._views  # type: ignore[attr-defined]
    assert views.untyped_storage().nbytes() == 4 * 30 * 84  # the series once, not once for each lag
    assert cut.dataset("train")._finished is None and finished.dataset("train")._finished is not None


def test_batches_come_in_a_new_order_each_epoch_and_all_at_once(closes: pd.DataFrame) -> None:
    data = returns(closes, batch_size=100)
    loader = data.train_dataloader()
    assert [len(batch[1]) for batch in loader] == [100] * (len(loader) - 1) + [len(data.dataset("train")) % 100 or 100]
    orders = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        orders.append(torch.cat([batch[1] for batch in loader]))
    assert not torch.equal(*orders) and torch.equal(*(order.sort().values for order in orders))


# which windows there are


def test_a_stock_counts_where_its_own_window_is_whole(dirty: pd.DataFrame) -> None:
    found = pd.concat([rows(returns(dirty, lags=12), part) for part in PARTS])
    months = {ticker: set(group.month) for ticker, group in found.groupby("ticker")}
    assert min(months["T01"]) == "2010-07"  # listed in 2009-06: the first return is July's, the 12th June's
    gap = {str(month) for month in pd.period_range("2010-02", "2011-03", freq="M")}
    assert not months["T02"] & gap and {"2010-01", "2011-04"} <= months["T02"]
    assert max(months["T03"]) == "2010-06" and max(months["T04"]) == "2012-03"  # to the last price, not further
    last = found[(found.ticker == "T04") & (found.month == "2012-03")].outcome.item()
    traded = dirty["T04"].dropna()
    assert last == pytest.approx(traded.iloc[-1] / traded.loc["2012-02"].iloc[-1] - 1, rel=1e-5)
    assert len(found[found.outcome == 0]) == len(found[(found.ticker == "T05") & (found.outcome == 0)])
    still = {str(month) for month in pd.period_range("2009-07", "2011-01", freq="M")}  # 12 months without a change
    assert not months["T05"] & still and {"2009-06", "2011-02"} <= months["T05"]


def test_a_price_that_jumps_up_and_back_is_not_trusted_from_then_on(
    closes: pd.DataFrame, printed: Callable[[], str]
) -> None:
    table = closes.copy()
    table.loc["2010-03", "T07"] *= 20.0
    table.loc["2011-06":, "T08"] /= 11  # once, and not back
    data, book = returns(table, lags=6), returns(table, lags=6, max_jumps=5)
    found, kept = (pd.concat([rows(each, part) for part in PARTS]) for each in (data, book))
    assert set(found[found.ticker == "T07"].month) == {m for m in kept[kept.ticker == "T07"].month if m <= "2010-04"}
    assert len(found[found.ticker == "T08"]) == len(kept[kept.ticker == "T08"]) == len(found[found.ticker == "T01"])
    lines = printed()
    assert re.search(r"jumps +3  tenfold within a month; wrong prices\? T07, T08\n", lines)
    assert re.search(r"distrusted windows +33  skipped", lines)  # 2010-05 to 2013-01


def test_no_month_is_shared_and_the_embargo_lies_between(dirty: pd.DataFrame) -> None:
    for recipe, embargo in (("point_in_time", None), ("point_in_time", 3), ("book", None), ("book", 2)):
        data = returns(dirty, recipe=recipe, embargo=embargo, validate_on_test=False, full_history=False)
        spans = [(found.month.min(), found.month.max()) for part in PARTS for found in [rows(data, part)]]
        (_, train), (first, val), (test, end) = [tuple(pd.Period(month, "M") for month in span) for span in spans]
        between = embargo if embargo is not None else int(recipe == "point_in_time")
        assert (first - train).n == between + 1 and (test - val).n == between + 1
        assert (val - first).n == 5 and (str(test), str(end)) == ("2012-01", "2012-12")


def test_the_counts_of_the_book(closes: pd.DataFrame) -> None:
    """2,489 stocks with 83 months of training and 12 of test gave it 206,587 and 29,868 rows."""
    table = panel(17, "2007-12", "2017-12")
    table.loc[:"2008-03", "T02"] = np.nan  # has no full history
    words = {"train_start": "2010-02", "train_end": "2016-12", "test_start": "2017-01", "test_end": "2017-12"}
    data = returns(table, recipe="book", **words)
    assert [len(data.dataset(part)) for part in PARTS] == [16 * 83, 16 * 12, 16 * 12]
    assert 2489 * 83 == 206_587 and 2489 * 12 == 29_868
    assert data.window_length == 36
    fewer = returns(table, recipe="book", leave_out=["T00", "T16"], **words)
    assert set(fewer.frame("test").ticker) == {f"T{number:02d}" for number in range(1, 16) if number != 2}


def test_defaults_of_the_months(closes: pd.DataFrame) -> None:
    data = MonthlyReturns(str(write(closes, Path("p.parquet"))))
    data.setup("fit")
    names = {part: [str(np.datetime64(month, "M")) for month in data.months_of(part)] for part in PARTS}
    assert names == {
        "train": ["2008-02", "2010-10"],
        "val": ["2010-12", "2011-11"],
        "test": ["2012-01", "2012-12"],
    }


# the flaws, each by itself


def test_flaw_c_clipping_with_the_test_year(closes: pd.DataFrame) -> None:
    wild = closes.copy()
    after = wild.loc["2012-01":].index
    wild.loc[after] *= np.exp(np.random.default_rng(1).normal(0, 0.3, (len(after), 30)))
    limits = {}
    for flaw in (False, True):
        calm, changed = (returns(table, clip_with_test=flaw).scaling for table in (closes, wild))
        assert calm is not None and changed is not None
        limits[flaw] = np.abs(changed.high - calm.high).max()
    assert limits[False] == 0 and limits[True] > 0.02


def test_flaw_d_only_survivors(dirty: pd.DataFrame) -> None:
    all_stocks, survivors = (returns(dirty, full_history=flaw, lags=12) for flaw in (False, True))
    gone = {"T01", "T02", "T03", "T04"}
    trained = [set(rows(data, "train").ticker) for data in (all_stocks, survivors)]
    assert gone <= trained[0] and trained[1] == trained[0] - gone
    assert len(rows(survivors, "test")) == 12 * 26


def test_flaw_e_delisted_stocks_with_returns_of_zero(dirty: pd.DataFrame) -> None:
    for flaw in (False, True):
        data = returns(dirty, fill_forward=flaw, lags=12)
        delisted = rows(data, "test")
        delisted = delisted[(delisted.ticker == "T03") | ((delisted.ticker == "T04") & (delisted.month > "2012-03"))]
        assert len(delisted) == (12 + 9 if flaw else 0)
        assert (delisted.outcome == 0).all()
        if flaw:  # a network can see that they are delisted: the whole window is zero
            raw = returns(dirty, fill_forward=True, lags=12, clip=0, scale=False)
            assert all(
                (row.window[0, :12] == 0).all() for _, row in rows(raw, "test").iterrows() if row.ticker == "T03"
            )


def test_flaw_f_the_test_year_as_validation(closes: pd.DataFrame) -> None:
    sound, flawed = (returns(closes, validate_on_test=flaw) for flaw in (False, True))
    months = {name: [set(rows(data, part).month) for part in PARTS] for name, data in (("s", sound), ("f", flawed))}
    assert months["f"][1] == months["f"][2] and not months["f"][0] & months["f"][2]
    assert not months["s"][1] & months["s"][2] and not months["s"][0] & months["s"][1]
    assert max(months["f"][0]) == "2011-11" and max(months["s"][0]) == "2011-04"


def test_a_recipe_is_its_flaws(dirty: pd.DataFrame) -> None:
    flaws = dict.fromkeys(("clip_with_test", "full_history", "fill_forward", "validate_on_test"), True)
    book, same = returns(dirty, recipe="book"), returns(dirty, **flaws, embargo=0, scale=False)
    clean = returns(dirty, recipe="book", **dict.fromkeys(flaws, False), embargo=1, scale=True)
    sound = returns(dirty)
    for one, other in ((book, same), (clean, sound)):
        for part in PARTS:
            pairs: Any = zip(one.arrays(part), other.arrays(part), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
    assert len(book.dataset("train")) != len(sound.dataset("train"))


# what the checkpoint knows, and the ranking of a new month


def test_the_checkpoint_carries_clipping_and_scaling(closes: pd.DataFrame) -> None:
    data = returns(closes, lags=6)
    torch.save({"MonthlyReturns": data.state_dict()}, "state.pt")
    state = data_state(torch.load("state.pt", weights_only=True), "scaling")
    assert state is not None
    new = panel(4, "2013-01", "2013-09", seed=3)
    other = MonthlyReturns(str(write(new, Path("new.parquet"))), lags=6)
    other.load_state_dict({"scaling": state})
    windows, tickers, month = other.latest_windows()
    assert (str(month), tickers) == ("2013-10", ["T00", "T01", "T02", "T03"])
    assert data.scaling is not None
    changes = new.resample("ME").last().pct_change().to_numpy()[-6:][::-1].T.astype(np.float32)
    low, high, mean, std = (
        part[0] for part in (data.scaling.low, data.scaling.high, data.scaling.mean, data.scaling.std)
    )
    np.testing.assert_allclose(windows[:, 0, :6], (changes.clip(low, high) - mean) / std, atol=2e-5)
    assert windows[:, 0, 6:].argmax(1).tolist() == [9] * 4  # October
    again, _, month = other.latest_windows("2013-09")
    np.testing.assert_array_equal(again[:, 0, 6 + 8], 1)
    assert str(month) == "2013-09" and "the latest is 2013-10" in refused(lambda: other.latest_windows("2014-01"))
    longer = MonthlyReturns("new.parquet", lags=5)
    longer.load_state_dict({"scaling": state})
    assert "remove options that change it, such as `data.lags`" in refused(longer.latest_windows)


# further series


def test_further_series_are_channels(closes: pd.DataFrame) -> None:
    table = long(closes)
    random = np.random.default_rng(0)
    table["volume"] = random.integers(1, 1000, len(table))
    mood = pd.DataFrame({"mood": random.normal(size=84)}, pd.period_range("2006-01", "2012-12", freq="M").end_time)
    mood.rename_axis("date").to_csv("mood.csv")
    other = write(closes[["T03", "T05"]] * 2, Path("other.parquet"))
    channels: dict[str, Any] = {
        "volume": {"monthly": "mean"},
        "mood": {"file": "mood.csv", "change": False},
        "twin": {"file": str(other)},
    }
    data = MonthlyReturns(str(write(table, Path("p.parquet"))), channels=channels, lags=4, clip=0, scale=False, **SPLIT)
    assert data.in_channels == 4
    data.setup("fit")
    found = rows(data, "train")
    assert set(found.ticker) == {"T03", "T05"}  # the others have no twin
    volume = table.pivot(index="date", columns="ticker", values="volume").resample("ME").mean().pct_change()
    for _, row in found.iloc[::25].iterrows():
        place = volume.index.get_loc(row.date)
        past = slice(place - 4, place)
        np.testing.assert_allclose(row.window[1, :4], volume[row.ticker].iloc[past][::-1], rtol=1e-5)
        np.testing.assert_allclose(row.window[2, :4], mood.mood.iloc[past][::-1], rtol=1e-6)
        np.testing.assert_allclose(row.window[3, :4], row.window[0, :4], atol=1e-6)
        assert (row.window[:, 4:] == row.window[0, 4:]).all()  # the month in each channel
    strange = write(closes.rename(columns=lambda name: f"X{name}"), Path("strange.parquet"))
    for options, telling in (
        ({"x": {"file": str(strange)}}, "are not those of the prices"),
        ({"x": {"file": "nowhere.csv"}}, "`data.channels` x: there is no file nowhere.csv: name a"),
        ({"turnover": {}}, "`data.channels` turnover: `data.price_column` turnover: p.parquet has no such column"),
    ):
        wrong = MonthlyReturns("p.parquet", channels=options, lags=4)  # type: ignore[arg-type]
        assert telling in refused(lambda: wrong.setup("fit"))  # noqa: B023


# the report, and the figure


@pytest.fixture
def printed(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.INFO)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def test_the_report_says_what_was_cleaned_and_what_is_left(dirty: pd.DataFrame, printed: Callable[[], str]) -> None:
    data = returns(pd.concat([dirty, dirty.iloc[[5]]]), fill_forward=True)
    lines = printed().splitlines()
    assert "MonthlyReturns: 30 stocks, 2006-01 to 2012-12, recipe point_in_time, with the flaws fill_forward" in lines
    text = " ".join(printed().split())
    for part in (
        "duplicates 29 replaced by the later",
        "stopped tickers 2 with windows",
        "gaps 1 months",
        "unsorted 1 put",
    ):
        assert part in text
    for part in PARTS:
        count = len(data.dataset(part))
        assert f"{part} {count:,} windows of {len(set(data.frame(part).ticker))} stocks" in text
    assert text.count("windows of") == 3 and text.count("recipe") == 1


def test_the_figure_shows_windows_with_their_outcomes(closes: pd.DataFrame) -> None:
    data = returns(closes)
    figure = data.plot(5)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 5
    first = data.frame("train").iloc[0]
    assert titles[0] == f"{first.ticker}, {first.date:%Y-%m}: {100 * first.outcome:+.1f} %"
    bars = [patch.get_height() for patch in figure.axes[0].patches]
    np.testing.assert_allclose(bars[:24][::-1], data.arrays("train")[0][0, 0, :24])
    picture = returns(closes, picture=True).plot(3)
    assert [axes.images[0].get_array().shape for axes in picture.axes[:3]] == [(15, 15)] * 3


# the real panel


def test_the_real_panel(shared_data: Path) -> None:
    """Today's members of the S&P 500: survivor-biased. A linear model on lags and months, train 2010-16, test 2017."""
    file = str(shared_data / "stocks" / "sp500_daily_adjclose.parquet")
    months: dict[str, Any] = {
        "train_start": "2010-01",
        "train_end": "2016-12",
        "test_start": "2017-01",
        "test_end": "2017-12",
    }
    book, sound = MonthlyReturns(file, recipe="book", **months), MonthlyReturns(file, **months)
    for data in (book, sound):
        data.setup("fit")
        data.setup("test")
    assert [len(book.dataset(part)) for part in PARTS] == [445 * 84, 445 * 12, 445 * 12]
    assert [len(sound.dataset(part)) for part in PARTS] == [
        32157,
        5819,
        5902,
    ]  # TT jumps
    windows, outcomes, _ = book.arrays("train")
    model = LogisticRegression(max_iter=2000).fit(windows[:, 0], outcomes > 0)
    windows, outcomes, _ = book.arrays("test")
    scored = book.frame("test").assign(score=model.decision_function(windows[:, 0]))
    ics = [group.score.corr(group.outcome, method="spearman") for _, group in scored.groupby("date")]
    assert roc_auc_score(outcomes > 0, scored.score) == pytest.approx(0.535, abs=0.005)
    assert np.mean(ics) == pytest.approx(0.04, abs=0.005)


# what a user can get wrong


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"lags": 0}, "`data.lags` 0"),
        ({"batch_size": 0}, "`data.batch_size` 0"),
        ({"clip": 0.5}, "`data.clip` 0.5"),
        ({"val_months": 0}, "`data.val_months` 0"),
        ({"embargo": -1}, "`data.embargo` -1"),
        ({"test_start": "2012"}, "`data.test_start` 2012: expected a month such as 2010-01"),
        ({"test_start": "2012-13"}, "`data.test_start` 2012-13"),
        ({"train_end": "2012-01"}, "does not lie after `data.train_end` 2012-01"),
        ({"test_start": "2012-05", "test_end": "2012-02"}, "`data.test_end` 2012-02 lies before"),
        ({"train_start": "2011-05", "train_end": "2011-02"}, "`data.train_end` 2011-02 lies before"),
        ({"picture": True, "channels": {"x": {}}}, "excludes `data.channels`"),
        ({"year_dummies": True}, "needs `data.train_start` and `data.test_end`"),
        ({"train_start": "2005-12"}, "`data.train_start` 2005-12 lies outside the prices, which go from 2006-01"),
        ({"test_end": "2013-01"}, "`data.test_end` 2013-01 lies outside the prices"),
        ({"lags": 84}, "84 months of prices (2006-01 to 2012-12) are too few for windows of 84"),
        ({"lags": 70}, "no month is left for training: the first with a window of 70 months is 2011-12"),
        ({"train_start": "2011-09"}, "no month is left for training"),
        ({"train_end": "2012-12", "test_start": None}, "no month is left for the test"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], telling: str, closes: pd.DataFrame) -> None:
    path = write(closes, Path("p.parquet"))
    assert telling in refused(lambda: MonthlyReturns(str(path), **{**SPLIT, **options}).setup("fit"))


def test_a_test_period_of_one_class(closes: pd.DataFrame) -> None:
    table = closes.copy()
    for number, (_, month) in enumerate(table.loc["2012-01":].groupby(pd.Grouper(freq="ME")), start=1):
        table.loc[month.index] = 100.0 * 1.01**number
    message = refused(lambda: returns(table, test_start="2012-02"))
    assert "outcomes of the months of test, 2012-02 to 2012-12, are up: metrics need both classes" in message


def test_an_infinite_return_costs_its_month_alone(closes: pd.DataFrame, printed: Callable[[], str]) -> None:
    table = closes.copy()
    table.loc["2009-02", "T07"], table.loc["2009-03", "T07"] = 1e-300, 1e300
    found = rows(returns(table, lags=3, max_jumps=9), "train")
    months = set(found[found.ticker == "T07"].month)
    assert not months & {"2009-03", "2009-04", "2009-05", "2009-06"} and {"2009-02", "2009-07"} <= months
    assert "infinite values" in printed()


def test_pictures_need_days(closes: pd.DataFrame) -> None:
    monthly = closes.resample("ME").last()
    assert "`data.picture` true requires daily prices" in refused(lambda: returns(monthly, picture=True))


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["--data.prices", "nowhere.parquet"], "there is no price file nowhere.parquet"),
        (["--data.prices", "p.parquet", "--data.test_start", "2031-01"], "lies outside the prices"),
        (["--data.prices", "p.parquet", "--data.price_column", "close"], "--data.price_column close is for long files"),
        (["--data.prices", "p.parquet", "--data.lags", "90"], "too few for windows of 90"),
        (["--data.prices", "p.parquet", "--model.window_length", "30"], "is set from the data"),
        (["--data.prices", "p.parquet", "--data.channels", '{"x": {"colunm": "a"}}'], "colunm"),
        (["--data.prices", "p.parquet", "--model", "ImageClassifier"], "add --model ReturnClassifier"),
        (["--data.prices", "p.parquet", "--data.recipe", "cook"], "point_in_time, book"),
        ([], "--data.prices"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else None,
)
def test_the_command_line_says_it_in_one_line(
    words: list[str], telling: str, closes: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    write(closes, Path("p.parquet"))
    assert main(["train", "--data", "MonthlyReturns", *words, "--wandb", "disabled"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert telling in line and len(line) < 400
    assert not Path("runs").exists()


def test_data_of_other_months_share_the_prices() -> None:
    path = str(write(panel(8, "2009-01", "2014-12"), Path("p.parquet")))
    months: dict[str, Any] = {"train_end": "2012-06", "test_start": "2012-09", "test_end": "2013-02"}
    fresh = MonthlyReturns(path, lags=6, **months)
    with prices_kept():
        first, shared = MonthlyReturns(path, lags=6), MonthlyReturns(path, lags=6, **months)
        first.setup("fit")
        shared.setup("fit")
        shared.setup("test")
    assert shared.prices is first.prices
    fresh.setup("fit")
    fresh.setup("test")
    for part in ("train", "val", "test"):
        ours, theirs = shared.arrays(part), fresh.arrays(part)
        assert all(np.array_equal(ours[place], theirs[place]) for place in range(3))
        assert fresh.frame(part).equals(shared.frame(part))


def test_a_file_is_needed_and_one_alone() -> None:
    for files in ((), ("a.csv", "b.csv")):
        with pytest.raises(UserError, match=r"^which file\? Set `data.prices` FILE, or `data.returns` FILE, and not"):
            MonthlyReturns(*files)
