import contextlib
import math
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chromium import chromium, needs_chromium
from run_folders import write_run
from scipy import stats

from lightning_cnn.cli import main
from lightning_cnn.errors import UserError
from lightning_cnn.evaluation.returns.measures import Settings, evaluate
from lightning_cnn.evaluation.returns.performance import sharpe_interval
from lightning_cnn.evaluation.returns.predictions import panel, read_predictions
from lightning_cnn.figures import returns_report as charts
from lightning_cnn.tracking.configurations import configurations_tried
from lightning_cnn.tracking.run import RunFolder

PICTURES = {"auc_months", "calibration", "deciles", "ic_methods", "ic_months", "ic_years", "long_short"}


def simulated(stocks: int = 40, months: int = 30, skill: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Probabilities of a signal, and returns that follow it a little."""
    generator = np.random.default_rng(seed)
    signal = generator.standard_normal((months, stocks))
    returns = 0.01 + 0.08 * (skill * signal + generator.standard_normal((months, stocks)))
    dates = np.arange(np.datetime64("2010-01", "M"), np.datetime64("2010-01", "M") + months).astype("datetime64[ns]")
    frame = pd.DataFrame(
        {
            "date": np.repeat(dates, stocks),
            "ticker": np.tile([f"S{number:03}" for number in range(stocks)], months),
            "prediction": 1 / (1 + np.exp(-0.1 * signal.ravel())),
            "outcome": returns.ravel(),
        }
    )
    frame.attrs["kind"] = "probability"
    return frame


@pytest.fixture
def files() -> Path:
    """Predictions and baselines in the working directory."""
    frame = simulated()
    frame.to_parquet("predictions.parquet")
    others = frame[["date", "ticker"]].assign(always_up=1.0, reversal=np.sin(np.arange(len(frame))))
    others.sample(frac=1, random_state=0).to_parquet("baselines.parquet")  # in any order
    return Path("predictions.parquet")


def test_the_report_of_a_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(files), "--note", "survivor-biased <panel>", "--cost_bps", "25", "--trials", "40"]) == 0
    out = capsys.readouterr().out
    ics = [stats.spearmanr(rows["prediction"], rows["outcome"]).statistic for _, rows in simulated().groupby("date")]
    ic = np.mean(ics), stats.ttest_1samp(ics, 0).statistic, np.mean(np.array(ics) > 0)
    assert re.search(rf"^model .* {ic[0]:.4f} +{ic[1]:.2f} +{100 * ic[2]:.0f} %", out, re.MULTILINE)
    assert re.search(r"^always up +\d\d\.\d\d % +0.5000 +0.5000 +- +- +- ", out, re.MULTILINE)
    assert "short-term reversal" in out and "30 months, 2010-01 to 2012-06, 1,200 predictions" in out
    assert "net of 25 basis points" in out and "40 configurations tried" in out
    assert {path.stem for path in Path("figures").glob("*.png")} == PICTURES
    page = Path("report.html").read_text()
    assert "survivor-biased &lt;panel&gt;" in page
    assert "No delisted stocks" in page
    assert page.count("<img ") == len(PICTURES) == page.count('src="data:image/png;base64,')
    assert not re.search(r"(src|href)=.https?:|<script|<link", page)  # it needs no network
    assert f"{ic[0]:.4f}" in page and "short-term reversal" in page


def test_what_a_score_can_not_say(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An order has no accuracy; stocks that ended are counted where their last return is not known."""
    frame = pd.read_parquet(files).assign(prediction=lambda rows: 10 * rows["prediction"])
    frame.attrs |= {"kind": "rank", "without_outcome": 7}
    frame.to_parquet(files)
    found = evaluate(panel(read_predictions(files)), Settings())
    assert np.isnan(found.model.numbers["acc"]) and "test/acc" not in found.metrics() and found.lost == 7
    assert main(["report", str(files)]) == 0
    out = capsys.readouterr().out
    assert re.search("^model +- ", out, re.MULTILINE) and "no price in the month: 7 further predictions" in out
    assert "in the month: 7 further predictions" in Path("report.html").read_text()


def test_the_accuracy_stands_beside_the_base_rate(files: Path) -> None:
    frame = read_predictions(files)
    found = evaluate(panel(frame), Settings())
    up = frame["outcome"] > 0
    assert found.up_rate == up.mean()
    assert found.model.numbers["acc"] == (up == (frame["prediction"] > 0.5)).mean()
    assert found.metrics()["test/up_rate"] == up.mean()
    bins = frame.assign(up=up).groupby(pd.cut(frame["prediction"], np.linspace(0, 1, 16)), observed=True)
    gaps = bins["prediction"].mean() - bins["up"].mean()
    assert found.model.numbers["ece"] == pytest.approx((gaps.abs() * bins.size()).sum() / len(frame), abs=1e-5)


def test_scores_say_up_above_zero() -> None:
    frame = simulated()
    frame["prediction"] -= 0.5  # of another sign, so no probabilities
    for kind in ("score", None):
        frame.attrs = {"kind": kind} if kind else {}
        frame.to_parquet("scores.parquet")
        found = evaluate(panel(read_predictions(Path("scores.parquet"))), Settings())
        assert found.model.numbers["acc"] == ((frame["outcome"] > 0) == (frame["prediction"] > 0)).mean()
        assert found.model.calibration is None and math.isnan(found.model.numbers["ece"])
    assert main(["report", "scores.parquet"]) == 0
    assert {path.stem for path in Path("figures").glob("*.png")} == PICTURES - {"calibration"}


def test_a_network_that_spots_dead_stocks_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    frame = simulated(skill=0)
    late = frame["date"] >= "2011-01-01"
    delisted = frame["ticker"].isin([f"S{number:03}" for number in range(20)]) & late
    frame.loc[delisted, ["prediction", "outcome"]] = 0.1, 0.0
    frame.to_parquet("delisted.parquet")
    found = evaluate(panel(read_predictions(Path("delisted.parquet"))), Settings())
    assert found.delisted == delisted.sum() == 20 * 18
    assert found.model.numbers["auc"] > 0.6
    assert abs(found.model.numbers["auc_listed"] - 0.5) < 0.06
    assert main(["report", "delisted.parquet"]) == 0
    assert f"AUC without delisted stocks {found.model.numbers['auc_listed']:.4f}" in capsys.readouterr().out
    assert "360 predictions" in Path("report.html").read_text()


def test_wrong_prices_are_pointed_at(capsys: pytest.CaptureFixture[str]) -> None:
    frame = simulated()
    frame.loc[7, "outcome"] = 120.0
    frame.to_parquet("wrong.parquet")
    assert main(["report", "wrong.parquet"]) == 0
    assert "1 outcome lies above 300% (the largest: S007 in 2010-01, 12,000 %)" in capsys.readouterr().out
    assert "S007 in 2010-01" in Path("report.html").read_text()


def test_bankruptcies_and_splits_are_pointed_at() -> None:
    frame = simulated()
    frame.loc[[9, 50], "outcome"] = -1.0, -0.95
    frame.to_parquet("fallen.parquet")
    found = evaluate(panel(read_predictions(Path("fallen.parquet"))), Settings())
    assert found.fallen == 2
    assert (found.warning() or "").startswith("2 outcomes lie below -90% (the lowest: S009 in 2010-01, -100 %): check")


@pytest.mark.parametrize("form", ["Tokyo", "number", "month number", "text", "period", "day first"])
def test_the_months_of_dates_of_every_form(form: str) -> None:
    frame = simulated()
    ends = frame["date"] + pd.offsets.MonthEnd(0)
    firsts = frame["date"]
    forms = {
        "Tokyo": firsts.dt.tz_localize("Asia/Tokyo"),
        "number": ends.dt.strftime("%Y%m%d").astype(int),
        "month number": ends.dt.strftime("%Y%m").astype(int),
        "text": ends.dt.strftime("%Y-%m-%d"),
        "period": ends.dt.to_period("M"),
        "day first": ends.dt.strftime("%d/%m/%Y"),
    }
    frame.assign(date=forms[form]).to_parquet("p.parquet")
    found = panel(read_predictions(Path("p.parquet")))
    assert found.months.astype(str).tolist() == sorted({f"{date:%Y-%m}" for date in firsts})


def test_percentile_ranks_are_no_probabilities() -> None:
    frame = simulated()
    frame.attrs = {}
    for name, ranks in (
        ("probability", frame["prediction"]),
        ("rank", frame.groupby("date")["prediction"].rank(pct=True)),
        ("rank", (frame.groupby("date")["prediction"].rank() - 1) / 39),
    ):
        frame.assign(prediction=ranks).to_parquet("p.parquet")
        assert panel(read_predictions(Path("p.parquet"))).kinds["model"] == name


def test_the_table_has_a_column_for_each_method(files: Path) -> None:
    assert main(["report", str(files)]) == 0
    rows = re.findall(r"<tr>(.*?)</tr>", Path("report.html").read_text(), re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in rows]
    assert cells[0] == ["", "model", "always up", "short-term reversal"]
    table = {row[0]: row[1] for row in cells[1:]}
    found = evaluate(panel(read_predictions(files)), Settings()).model.numbers
    assert table["rank IC <small>mean</small>"] == f"{found['ic']:.4f}"
    interval = f"<small>{found['sharpe_low']:.2f} to {found['sharpe_high']:.2f}</small>"
    assert table["Sharpe <small>net, 95 % interval</small>"] == f"{found['sharpe_net']:.2f} {interval}"


def test_an_interval_needs_two_blocks() -> None:
    returns = np.array([0.01, 0.03, -0.02, 0.05])
    low, high = sharpe_interval(returns, block=2)
    assert low < high
    assert np.isnan(sharpe_interval(returns, block=3)).all()  # each draw would be the same months


def test_one_month_is_one_month(capsys: pytest.CaptureFixture[str]) -> None:
    simulated(months=1).to_parquet("one.parquet")
    assert main(["report", "one.parquet"]) == 0
    assert "\n1 month, 2010-01 to 2010-01, 40 predictions" in capsys.readouterr().out
    page = Path("report.html").read_text()
    assert "1 month out of sample" in page and "probability of skill" not in page


def test_axes_and_legends() -> None:
    """Tick labels differ as the ticks do; one month has one tick; a legend lies above the axes."""
    steps = np.linspace(-0.0005, 0.0070, 10)
    figure = charts.groups(np.stack([steps - 1e-4, steps + 1e-4]), 0.002)
    axes = figure.axes[0]
    figure.draw_without_rendering()
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len({*labels}) == len(labels)
    for label, tick in zip(labels, axes.get_yticks(), strict=True):
        assert float(label.replace("\u2212", "-").rstrip("%")) == pytest.approx(100 * tick, abs=1e-9)
    months = np.array(["2010-01"], dtype="datetime64[M]")
    one = charts.by_month(months, np.array([0.1]), "rank IC", 0.0).axes[0]
    assert [text.get_text() for text in one.get_xticklabels()] == ["2010-01"]
    many = np.arange(np.datetime64("2010-01"), np.datetime64("2012-01"))
    values = np.where(np.arange(24) % 2 == 0, 0.1, -0.1)
    chart = charts.by_month(many, values, "rank IC", 0.0)
    legend = chart.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["above 0", "below 0", "mean of 12 months"]
    year, start = many[:12], many[:1]
    single = charts.by_month(year, values[:12], "rank IC", 0.0), charts.cumulative_ics(start, {"model": values[:1]})
    for each in single:  # a line of one point is nothing to be seen
        (line,) = [line for line in each.axes[0].get_lines() if not str(line.get_label()).startswith("_")]
        assert np.size(line.get_xdata()) == 1 and line.get_marker() == "o"
    figure = charts.calibration({"model": (np.array([0.4, 0.6]), np.array([0.1, 1.0]), np.array([4, 4]))}, 0.5)
    low, high = figure.axes[0].dataLim.intervaly
    assert low >= 0 and high <= 1.02  # no bar says that a share is negative or above one
    chart.draw_without_rendering()
    assert legend.get_window_extent().y0 >= chart.axes[0].get_window_extent().y1 - 1


def test_the_bootstrap_is_seeded_and_options_matter(files: Path) -> None:
    rows = panel(read_predictions(files))
    first, again, other = (evaluate(rows, Settings(seed=seed)).model.numbers for seed in (0, 0, 1))
    assert first == again
    assert first["sharpe_low"] != other["sharpe_low"] and first["sharpe"] == other["sharpe"]
    costly = evaluate(rows, Settings(cost_bps=50)).model.numbers
    assert costly["sharpe"] == first["sharpe"] and costly["sharpe_net"] < first["sharpe_net"] < first["sharpe"]
    assert evaluate(rows, Settings(deciles=4)).model.groups.shape == (30, 4)
    assert evaluate(rows, Settings(trials=50)).model.numbers["deflated"] < first["deflated"]


def test_five_hundred_stocks_take_seconds() -> None:
    frame = simulated(500, 120)
    frame.to_parquet("large.parquet")
    begin = time.process_time()
    found = evaluate(panel(read_predictions(Path("large.parquet"))), Settings())
    assert time.process_time() - begin < 5
    assert found.model.numbers["ic_t"] > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=["outcome", "ticker"]), "has no column ticker, outcome: it needs date, ticker, pred"),
        (lambda f: f.assign(outcome=0.01), "all 1,200 outcomes are above 0, one class only"),
        (lambda f: f.assign(outcome=-f["outcome"].abs()), "all 1,200 outcomes are 0 or below, one class only"),
        (lambda f: f.assign(prediction=np.nan), "1,200 of 1,200 rows without a date or a finite prediction"),
        (lambda f: f.assign(prediction="high"), "date must hold dates, prediction and outcome numbers"),
        (lambda f: pd.concat([f, f.head(3)]), "has 3 rows with the same month and ticker"),
        (lambda f: f.head(0), "has no rows"),
    ],
)
def test_bad_files_get_one_line(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(simulated()).to_parquet("bad.parquet")
    assert main(["report", "bad.parquet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: bad.parquet") and message in error and error.count("\n") == 1
    assert not Path("report.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.parquet"], "there is no file nothing.parquet"),
        (["broken.parquet"], "can't be read as Parquet"),
        (["predictions.parquet", "--deciles", "1"], "--deciles 1: it must be at least 2"),
        (["predictions.parquet", "--cost_bps", "-1"], "--cost_bps -1.0: it must be at least 0"),
        (
            ["predictions.parquet", "--output", "no/such/report.html"],
            "can't write no/such/report.html (Not a directory)",
        ),
        (["20260101-100000-aaab"], "no run '20260101-100000-aaab' under runs; did you mean 20260101-100000-aaaa?"),
        (["digits/20260101-100000-aaaa"], "has no predictions and no checkpoint: finish its training"),
    ],
)
def test_mistakes_get_one_line(files: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(Path("runs"), "digits/20260101-100000-aaaa", {"data": "Digits"})
    Path("broken.parquet").write_text("not Parquet")
    Path("no").write_text("a file where a folder would have to be")
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_lost_columns_and_bytes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column that pandas' notes in the file name and that is gone, and single bytes of the file."""
    from pyarrow import parquet

    pd.read_parquet(files).set_index(["date", "ticker"]).to_parquet("lost.parquet")
    table = parquet.read_table("lost.parquet")
    for name in table.column_names:
        parquet.write_table(table.drop_columns([name]), "lost.parquet")
        with pytest.raises(UserError, match=r"lost\.parquet"):
            read_predictions(Path("lost.parquet"))
    content, draw = files.read_bytes(), random.Random(21)
    for _ in range(60):
        changed = bytearray(content)
        for _ in range(3):
            changed[draw.randrange(len(content))] = draw.randrange(256)
        Path("changed.parquet").write_bytes(changed)
        with contextlib.suppress(UserError):  # some changes are within the numbers
            read_predictions(Path("changed.parquet"))


def test_baselines_of_other_rows_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.read_parquet("baselines.parquet").iloc[1:].to_parquet("baselines.parquet")
    assert main(["report", str(files)]) == 2
    assert "baselines.parquet does not have the rows of the predictions" in capsys.readouterr().err


def test_configurations_are_counted_by_what_they_try() -> None:
    def run(number: int, epochs: int = 3, prices: str = "a.parquet", **changes: object) -> RunFolder:
        config = {"data": {"class_path": "MonthlyReturns", "init_args": {"prices": prices}}, "jobs": number}
        model = {"class_path": "ReturnClassifier", "init_args": {"lr": 0.1} | changes}
        folder = write_run(Path("runs"), f"r/{number}", config | {"model": model}, epochs=epochs)
        return RunFolder.open(folder)

    first = run(1)
    assert configurations_tried(first, Path("runs")) == 1
    run(2)  # the same once more
    run(7, prices="./r/../a.parquet")
    run(3, lr=0.2)
    run(4, lr=0.2, seed=1)
    run(5, epochs=0, lr=0.5)  # ended before its first epoch
    other = {"data": {"class_path": "MonthlyReturns", "init_args": {"prices": "b.parquet"}}}
    write_run(Path("runs"), "r/6", other, epochs=3)
    assert configurations_tried(first, Path("runs")) == 3


def overflow(browser: Any, width: int, address: str) -> list[int]:
    """How much wider than what is shown the page and its tables are."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(address)
    found: list[int] = browser.execute_script(
        "return [document.documentElement, ...document.querySelectorAll('.wide')]"
        ".map(e => e.scrollWidth - e.clientWidth)"
    )
    return found


@needs_chromium
@pytest.mark.figures
def test_the_page_shows_its_pictures_in_a_browser(files: Path, tmp_path: Path) -> None:
    assert main(["report", str(files), "--output", str(tmp_path / "page.html")]) == 0
    with chromium(tmp_path) as browser:
        browser.get((tmp_path / "page.html").as_uri())
        widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")  # type: ignore[no-untyped-call]
        table = browser.execute_script("return document.querySelectorAll('table')[0].innerText")  # type: ignore[no-untyped-call]
        hidden = {width: overflow(browser, width, (tmp_path / "page.html").as_uri()) for width in (360, 700, 1200)}
    assert len(widths) == len(PICTURES) and min(widths) > 500
    assert "short-term reversal" in table
    assert hidden[700] == hidden[1200] == [0, 0, 0], "pixels to the right of the page, and of its two tables"
    assert hidden[360][0] == 0, "the page itself never scrolls sideways"
