"""Pictures of indicators: each row against its definition, and what they must not depend on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from price_files import panel, write

from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.datamodules.returns.pictures import DAYS, FILLED, INDICATORS, PERIODS, SIDE, pictures

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def closes() -> Floats:
    """Five windows of closes."""
    closes: Floats = panel(5, "2010-01", "2010-06").to_numpy()[:DAYS].T.copy()
    return closes


def row(found: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return found[:, INDICATORS.index(name)]


def test_the_indicators_are_what_they_are_called(closes: Floats) -> None:
    found = pictures(closes)
    assert found.shape == (5, SIDE, SIDE) and found.dtype == np.float32 and len(INDICATORS) == len(PERIODS) == 15
    for number, window in enumerate(closes):
        series = pd.Series(window)
        change, now = series.diff(), window[-1]
        fast, slow = (series.ewm(span=span).mean() for span in (12, 26))
        for place, n in enumerate(PERIODS):
            last, steps = series[-n:], change[-n:]
            wilder = [
                part.ewm(alpha=1 / n).mean().iloc[-1] for part in (change.clip(lower=0)[1:], -change.clip(upper=0)[1:])
            ]
            weights = np.arange(1, n + 1)
            ema = series.ewm(span=n).mean()
            twice = ema.ewm(span=n).mean()
            thrice = twice.ewm(span=n).mean()
            line = fast - slow
            exact = {
                "Williams %R": (last.max() - now) / (last.max() - last.min()),
                "SMA": last.mean() / now - 1,
                "WMA": (last * weights).sum() / weights.sum() / now - 1,
                "CCI": (now - last.mean()) / (0.015 * (last - last.mean()).abs().mean()),
                "CMO": steps.sum() / steps.abs().sum(),
                "ROC": now / window[-1 - n] - 1,
                "Bollinger": (now - last.mean()) / (2 * last.std(ddof=0)),
                "volatility": series.pct_change()[-n:].std(ddof=0),
                "PSI": (steps > 0).mean(),
                "RSI": wilder[0] / sum(wilder),
                "EMA": ema.iloc[-1] / now - 1,
                "PPO": ema.iloc[-1] / series.ewm(span=2 * n).mean().iloc[-1] - 1,
            }
            repeated = {  # averages of averages: where the first begins makes a small difference
                "TEMA": (3 * ema - 3 * twice + thrice).iloc[-1] / now - 1,
                "MACD": (line - line.ewm(span=n).mean()).iloc[-1] / now,
            }
            for name, value in exact.items():
                assert row(found, name)[number, place] == pytest.approx(value, rel=1e-4, abs=1e-6), (name, n)
            for name, value in repeated.items():
                assert row(found, name)[number, place] == pytest.approx(value, rel=0.02, abs=1e-3), (name, n)
    hull = pd.Series(closes[0])

    def wma(series: pd.Series, n: int) -> pd.Series:
        return series.rolling(n).apply(lambda part: (part * np.arange(1, n + 1)).sum() / (n * (n + 1) / 2), raw=True)

    wanted = wma(2 * wma(hull, 8) - wma(hull, 16), 4).iloc[-1] / closes[0, -1] - 1
    assert row(found, "HMA")[0, PERIODS.index(16)] == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_the_level_of_the_price_does_not_matter(closes: Floats) -> None:
    np.testing.assert_allclose(pictures(closes * 1000), pictures(closes), rtol=1e-4, atol=1e-5)


def test_prices_that_rise_and_prices_that_stand_still() -> None:
    rising, still = pictures(np.stack([1.01 ** np.arange(DAYS), np.full(DAYS, 42.0)]))
    for name, value in (("RSI", 1), ("CMO", 1), ("PSI", 1), ("Williams %R", 0)):
        np.testing.assert_allclose(rising[INDICATORS.index(name)], value, atol=1e-6)
    assert (rising[INDICATORS.index("ROC")] > 0).all() and (rising[INDICATORS.index("SMA")] < 0).all()
    np.testing.assert_allclose(still, 0, atol=1e-6)


def test_pictures_end_with_the_month_before_the_outcome() -> None:
    closes = panel(4, "2008-01", "2012-12")
    closes.loc["2010-05-03":"2010-05-07", "T01"] = np.nan  # FILLED days: filled
    closes.loc["2010-05-03":"2010-05-10", "T02"] = np.nan  # one more: a gap
    data = MonthlyReturns(str(write(closes, Path("p.parquet"))), picture=True, clip=0, scale=False)
    data.setup("fit")
    assert (data.in_channels, data.window_length, FILLED) == (1, 15, 5)
    windows, _, _ = data.arrays("train")
    frame = data.frame("train")
    assert windows.shape == (len(frame), 1, 15, 15)
    for number in range(0, len(frame), 9):
        ticker, date = frame.ticker[number], frame.date[number]
        past = closes[ticker].ffill(limit=FILLED).loc[: date.replace(day=1) - pd.Timedelta(days=1)].to_numpy()[-DAYS:]
        np.testing.assert_allclose(windows[number, 0], pictures(past[None])[0], atol=1e-5)
    months = {ticker: set(part.date.dt.strftime("%Y-%m")) for ticker, part in frame.groupby("ticker")}
    assert min(months["T00"]) == "2008-07"  # 90 weekdays and a return before it
    assert months["T01"] == months["T00"]
    assert months["T00"] - months["T02"] == {"2010-06", "2010-07", "2010-08", "2010-09"}
