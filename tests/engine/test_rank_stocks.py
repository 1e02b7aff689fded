"""`predict --prices` and `--returns`: this month's ranking of the stocks of a new file."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from price_files import long, panel, write

from lightning_cnn.cli import main
from lightning_cnn.datamodules import SyntheticReturns
from lightning_cnn.modules import ReturnClassifier

LAGS = 6
QUIET = ["--wandb", "disabled", "--trainer.enable_progress_bar", "false", "--model.lr", "0.01"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a classifier that was trained on other prices, one of them left out."""
    folder = tmp_path_factory.mktemp("trained")
    prices = write(panel(12, "2009-01", "2012-12"), folder / "old.parquet")
    words = ["--data", "MonthlyReturns", "--data.prices", str(prices), "--data.lags", str(LAGS)]
    words += ["--data.recipe", "book", "--data.leave_out", "[T05]", "--data.batch_size", "32"]
    runs = ["--runs_dir", str(folder / "runs")]
    steps = ["--trainer.max_epochs", "1"]
    assert main(["fit", *words, *runs, *QUIET, *steps]) == 0
    (path,) = folder.rglob("best.ckpt")
    assert main(["fit", *runs, "--resume", path.parents[1].name, "--trainer.max_epochs", "2"]) == 0
    return path


@pytest.fixture(scope="module")
def new() -> pd.DataFrame:
    """Fifteen stocks; T01 was listed too late, T02 has stopped trading; the last month has just begun."""
    table = panel(15, "2013-01", "2014-03", seed=7).loc[:"2014-03-05"]
    table.loc[:"2013-10", "T01"] = np.nan
    table.loc["2014-01-20":, "T02"] = np.nan
    return table


def ranking(path: str = "ranking.csv") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_ranking_is_what_the_network_says_of_the_last_months(
    checkpoint: Path, new: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    """With clipping and scaling of the training, computed here from the checkpoint and the prices alone."""
    write(new, Path("new.parquet"))
    assert main(["predict", "--ckpt_path", str(checkpoint), "--prices", "new.parquet"]) == 0
    out = capsys.readouterr().out
    rows = ranking()
    assert "12 stocks ranked for 2014-03, written to ranking.csv" in out and f"1  {rows[0]['ticker']}" in out
    assert {row["ticker"] for row in rows} == set(new.columns) - {"T01", "T02", "T05"}
    saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    scaling = saved["MonthlyReturns"]["scaling"]
    returns = new.resample("ME").last().loc[:"2014-02"].pct_change(fill_method=None).tail(LAGS)
    lags = returns[[row["ticker"] for row in rows]].to_numpy()[::-1].T
    low, high, mean, std = (np.array(scaling[name])[0] for name in ("low", "high", "mean", "std"))
    windows = np.concatenate([(lags.clip(low, high) - mean) / std, np.tile(np.eye(12)[2], (len(rows), 1))], 1)
    model = ReturnClassifier(window_length=LAGS + 12, lags=LAGS)
    model.load_state_dict(saved["state_dict"])
    chances = model.eval()(torch.from_numpy(windows).float()[:, None]).sigmoid().tolist()
    assert [float(row["prediction"]) for row in rows] == pytest.approx(chances, abs=1e-5)
    assert chances == sorted(chances, reverse=True) and len(set(chances)) == 12
    assert [row["rank"] for row in rows] == [str(number) for number in range(1, 13)]


def test_a_month_of_the_past_is_ranked_as_it_would_have_been_then(checkpoint: Path, new: pd.DataFrame) -> None:
    """Whatever form the file has, and whatever came later, to the byte."""
    later = new.copy()
    later.loc["2014-01":] *= 1 + np.random.default_rng(0).random((len(later.loc["2014-01":]), 15))
    later.loc["2014-02":, "T09"] = np.nan
    files = [
        write(new.loc[:"2013-12"], Path("then.parquet")),
        write(new, Path("new.csv")),
        write(long(later).sample(frac=1, random_state=0), Path("later.parquet")),
    ]
    found = []
    for number, file in enumerate(files):
        output = f"{number}.csv"
        words = ["--month", "2014-01"] if number else []
        assert main(["predict", "--ckpt_path", str(checkpoint), "--prices", str(file), "--output", output, *words]) == 0
        found.append(Path(output).read_bytes())
    assert found[0] == found[1] == found[2] and found[0].count(b"\n") == 1 + 13  # T02 still trades
    assert main(["predict", "--ckpt_path", str(checkpoint), "--prices", str(files[2]), "--output", "now.csv"]) == 0
    assert Path("now.csv").read_bytes() != found[0]
    words = ["predict", "--ckpt_path", str(checkpoint), "--prices", "new.csv", "--month", "2014-02"]
    assert main([*words, "--output", "february.csv"]) == 0
    assert "T02" not in {row["ticker"] for row in ranking("february.csv")}  # its last price is ten days old


@pytest.fixture(scope="module")
def of_returns(checkpoint: Path) -> Path:
    """The same network, trained on the returns of these prices, in a file with a column that must be named."""
    old = pd.read_parquet(checkpoint.parents[4] / "old.parquet").set_index("date")
    file = checkpoint.parents[4] / "returns.parquet"
    long(old.pct_change()).rename(columns={"adj_close": "r"}).to_parquet(file)
    words = ["--data.returns", str(file), "--data.price_column", "r", "--data.lags", str(LAGS)]
    words += ["--data.recipe", "book", "--data.leave_out", "[T05]", "--data.batch_size", "32"]
    runs = file.parent / "of_returns"
    steps = ["--trainer.max_epochs", "1", "--runs_dir", str(runs)]
    assert main(["fit", *words, *QUIET, *steps]) == 0
    (path,) = runs.rglob("best.ckpt")
    return path


@pytest.mark.parametrize("trained", ["prices", "returns"])
def test_prices_and_their_returns_are_ranked_alike(
    trained: str, checkpoint: Path, of_returns: Path, new: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of them the network was trained on: the windows are the same; what was said about the file is not."""
    path = checkpoint if trained == "prices" else of_returns
    rates = new.pct_change(fill_method=None)
    write(new, Path("new.parquet"))
    write(long(rates).rename(columns={"adj_close": "r"}), Path("named.csv"))
    write(long(rates).rename(columns={"adj_close": "ret"}), Path("known.csv"))
    month_ends = new.loc[:"2014-02"].resample("ME").last()
    month_ends.index.name = "date"
    month_ends.loc["2014-02", "T02"] = np.nan
    write(month_ends.pct_change(fill_method=None), Path("monthly.parquet"))
    found = {}
    for name, words in {
        "prices": ["--prices", "new.parquet"],
        "named": ["--returns", "named.csv", *([] if trained == "returns" else ["--data.price_column", "r"])],
        "known": ["--returns", "known.csv", *([] if trained == "prices" else ["--data.price_column", "ret"])],
        "monthly": ["--returns", "monthly.parquet", "--data.last_month", "finished"],
    }.items():
        if name == "monthly" and trained == "returns":
            continue  # a wide file has no column `r`
        assert main(["predict", "--ckpt_path", str(path), *words]) == 0, name
        assert "12 stocks ranked for 2014-03" in capsys.readouterr().out
        found[name] = pd.read_csv("ranking.csv")
        assert found[name]["ticker"].tolist() == found["prices"]["ticker"].tolist()
        assert np.abs(found[name]["prediction"] - found["prices"]["prediction"]).max() < 1e-5
    if trained == "returns":
        assert main(["predict", "--ckpt_path", str(path), "--returns", "known.csv"]) == 2
        assert "`data" not in (err := capsys.readouterr().err) and "--data.price_column r: known.csv has no such" in err


def test_pictures_of_prices_need_prices(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    saved["datamodule_hyper_parameters"]["picture"] = True
    torch.save(saved, "pictures.ckpt")
    assert main(["predict", "--ckpt_path", "pictures.ckpt", "--returns", "r.csv"]) == 2
    assert "trained on pictures of daily prices: use --prices" in capsys.readouterr().err


def test_the_last_month_is_that_of_the_new_file(
    checkpoint: Path, new: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    write(new.loc[:"2014-02-24"], Path("short.csv"))
    for words, month in (([], "2014-02"), (["--data.last_month", "finished"], "2014-03")):
        assert main(["predict", "--ckpt_path", str(checkpoint), "--prices", "short.csv", *words]) == 0
        assert f"ranked for {month}" in capsys.readouterr().out


def test_what_was_learned_from_simulated_returns_ranks_real_ones(checkpoint: Path, new: pd.DataFrame) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    simulated = dict(SyntheticReturns(stocks=20, lags=LAGS).hparams)
    saved["datamodule_hyper_parameters"] = simulated | {"_class_path": "lightning_cnn.datamodules.SyntheticReturns"}
    torch.save(saved, "simulated.ckpt")
    write(new, Path("new.parquet"))
    assert main(["predict", "--ckpt_path", "simulated.ckpt", "--prices", "new.parquet"]) == 0
    assert len(ranking()) == 13  # T05 was left out of other data


def test_a_run_that_goes_on_with_several_steps_a_call_writes_no_line_twice(checkpoint: Path) -> None:
    with (checkpoint.parents[1] / "metrics.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file) if row["val/loss"]] == [0, 1]


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        ([], "or with a --ckpt_path --prices FILE or --returns FILE, and only one of them"),
        (
            ["--prices", "p.parquet", "--images", "x.png"],
            "or with a --ckpt_path --prices FILE or --returns FILE, and only one of them",
        ),
        (["--prices", "p.parquet", "--returns", "r.parquet"], "and only one of them"),
        (["--month", "2014-01", "--images", "x.png"], "--month requires --prices or --returns"),
        (["--data.layout", "wide", "--images", "x.png"], "--data.layout requires --prices or --returns"),
        (["--prices", "p.parquet", "--data.lags", "3"], "unrecognized arguments: --data.lags"),
        (["--prices", "p.parquet", "--draw", "boxes"], "--draw requires --images"),
        (["--returns", "r.parquet", "--masks", "masks"], "--masks requires --images"),
        (["--images", "p.parquet"], "not images: use `lightning-cnn predict` with --prices"),
        (["--prices", "nowhere.csv"], "no price file nowhere.csv: set --prices to a .parquet or .csv file"),
        (["--returns", "nowhere.csv"], "no file of returns nowhere.csv: set --returns to a .parquet or .csv file"),
        (
            ["--returns", "p.parquet"],
            "returns are above 100 %: give fractions (0.01 for one per cent)",
        ),
        (["--prices", "us.csv"], "set --data.date_format %d/%m/%Y or %m/%d/%Y"),
        (["--prices", "p.parquet", "--month", "2031-01"], "--month 2031-01: the prices go from 2013-01 to 2014-02"),
        (["--prices", "p.parquet", "--month", "May"], "--month May: expected a month such as 2010-01"),
        (["--prices", "p.parquet", "--month", "2013-03"], "2013-03, have no stock with a complete window of 6 months"),
        (["--prices", "no_dates.csv"], "has no column of dates"),
        (["--prices", "p.parquet", "--weights", "w.pth"], "--prices needs --ckpt_path"),
        (["--returns", "p.parquet", "--weights", "w.pth"], "--returns needs --ckpt_path"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line_and_leave_no_file(
    words: list[str], telling: str, checkpoint: Path, new: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    write(new, Path("p.parquet"))
    Path("no_dates.csv").write_text("a,b\n1.5,2.5\n1.6,2.4\n")
    new[new.index.day < 10].rename(lambda day: f"{day:%m/%d/%Y}").to_csv("us.csv")
    assert main(["predict", "--ckpt_path", str(checkpoint), *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert telling in line and len(line) < 400
    assert not [*Path().glob("*ing.csv")]


@pytest.mark.parametrize("words", [["predict", "--prices", "new.parquet"], ["test"]], ids=lambda words: words[0])
def test_weights_of_another_structure_are_refused(
    words: list[str], checkpoint: Path, new: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a network whose file has changed since."""
    saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    saved["state_dict"] = {name.replace("conv_pool", "0"): value for name, value in saved["state_dict"].items()}
    torch.save(saved, "old.ckpt")
    write(new, Path("new.parquet"))
    assert main([*words, "--ckpt_path", "old.ckpt"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "does not fit the model: they differ in network.features.0.bias and 3 more" in line
    assert not Path("ranking.csv").exists()


def test_a_checkpoint_of_images_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}, "images.ckpt")
    assert main(["predict", "--ckpt_path", "images.ckpt", "--prices", "p.parquet"]) == 2
    assert "images.ckpt was not trained on monthly returns" in capsys.readouterr().err
