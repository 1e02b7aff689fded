import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from price_files import panel, write
from run_folders import only_run, record

from lightning_cnn.cli import main
from lightning_cnn.config.config import Config
from lightning_cnn.datamodules.returns.file_options import FileOptions
from lightning_cnn.datamodules.returns.price_source import PriceSource
from lightning_cnn.engine import fit
from lightning_cnn.tracking.run import RunFolder

DRAWN = ["--data", "SyntheticReturns", "--data.stocks", "40", "--data.months", "75", "--data.lags", "12"]
SMALL = [*DRAWN, "--data.momentum", "0.25", "--data.val_months", "6", "--trainer.max_epochs", "2", "--model.lr", "0.01"]
WALK = [*SMALL, "--train_months", "36", "--wandb", "disabled"]  # outcomes in 62 months: folds of 12, 12 and 1
FOLDS = ["2017-12_2018-11", "2018-12_2019-11", "2019-12_2019-12"]
CALL = [sys.executable, "-m", "lightning_cnn", "walkforward"]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished walk-forward, in `runs/`; not to be changed."""
    runs = tmp_path_factory.mktemp("walked") / "runs"
    assert main(["walkforward", *WALK, "--runs_dir", str(runs), "--note", "simulated, no market"]) == 0
    (folder,) = runs.glob("*/*")
    return folder


def child_runs(folder: Path) -> dict[str, Path]:
    """The run of each fold."""
    return {path.parent.parent.name: path.parent for path in sorted(folder.glob("folds/*/*/run.json"))}


def test_every_fold_is_an_ordinary_run_on_its_own_months(walked: Path) -> None:
    found = child_runs(walked)
    assert list(found) == FOLDS
    for name, folder in found.items():
        child = record(folder)
        assert child["status"] == "finished" and child["epochs"] == 2 and child["parameters"] == 481
        assert {"test/auc", "test/ic", "val/loss"} <= set(child["metrics"])
        assert (folder / "checkpoints" / "best.ckpt").is_file() and (folder / "metrics.csv").is_file()
        data = yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]
        start, end = (np.datetime64(month, "M") for month in name.split("_"))
        assert [data[key] for key in ("test_start", "test_end")] == name.split("_")
        assert np.datetime64(data["train_end"], "M") == start - 2  # a month between
        assert data["train_start"] == "2014-11"  # the windows expand
        months = pd.read_parquet(folder / "predictions.parquet")["date"].to_numpy().astype("datetime64[M]")
        assert (np.unique(months) == np.arange(start, end + 1)).all()
        assert "test" in (folder.parent / "log.txt").read_text()


def test_the_predictions_are_joined(walked: Path) -> None:
    joined = pd.read_parquet(walked / "predictions.parquet")
    parts = pd.concat([pd.read_parquet(folder / "predictions.parquet") for folder in child_runs(walked).values()])
    assert list(joined.columns) == ["date", "ticker", "prediction", "outcome"]
    assert len(joined) == len(parts) == 25 * 40
    assert not joined.duplicated(["date", "ticker"]).any() and joined["date"].is_monotonic_increasing
    pd.testing.assert_frame_equal(joined, parts.sort_values(["date", "ticker"], ignore_index=True))
    assert joined.attrs == {"kind": "probability", "without_outcome": 0}
    others = pd.read_parquet(walked / "baselines.parquet")
    pd.testing.assert_frame_equal(others[["date", "ticker"]], joined[["date", "ticker"]])
    names = ["always_up", "momentum_12_1", "reversal", "logistic_regression", "gradient_boosting"]
    assert list(others.columns) == ["date", "ticker", *names]


def test_the_walk_forward_finds_the_planted_momentum(walked: Path) -> None:
    run = record(walked)
    metrics = run["metrics"]
    assert run["status"] == "finished" and run["epochs"] == 6 and run["parameters"] == 481
    assert metrics["test/auc"] > 0.55 and metrics["test/auc_month"] > 0.55  # without skill 0.5 +- 0.018
    assert metrics["test/ic_t"] > 3 and metrics["test/sharpe"] > 1
    wanted = ["acc", "auc", "auc_month", "ic", "ic_t", "ic_positive", "sharpe", "sharpe_net", "up_rate"]
    assert {f"test/{name}" for name in wanted} <= set(metrics)
    momentum = pd.read_parquet(walked / "baselines.parquet")["momentum_12_1"]
    prediction = pd.read_parquet(walked / "predictions.parquet")["prediction"]
    assert momentum.corr(prediction, method="spearman") > 0.5


def test_the_future_changes_no_prediction_up_to_it_not_of_the_baselines_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, of a fold before the change and of one in the midst of which the prices change."""
    parsed = []

    def counted(path: Path, options: FileOptions) -> PriceSource:
        parsed.append(path)
        return PriceSource(path, options)

    monkeypatch.setattr("lightning_cnn.datamodules.returns.price_reading.PriceSource", counted)
    closes = panel(12, "2006-01", "2010-12")
    other = closes.copy()
    future = other.loc["2010-07":].index
    other.loc[future] = 100 * np.exp(np.random.default_rng(5).normal(0, 0.1, other.loc[future].shape).cumsum(axis=0))
    found = []
    for name, table in (("known", closes), ("changed", other)):
        words = ["--data", "MonthlyReturns", "--data.prices", str(write(table, Path(f"{name}.parquet")))]
        words += ["--data.lags", "3", "--data.val_months", "6", "--trainer.max_epochs", "1", "--first_test", "2009-01"]
        assert main(["walkforward", *words, "--train_months", "24", "--wandb", "disabled", "--runs_dir", name]) == 0
        (folder,) = Path(name).glob("*/*")
        joined = pd.read_parquet(folder / "predictions.parquet").drop(columns="outcome")  # of July it is not known yet
        others = pd.read_parquet(folder / "baselines.parquet")
        found.append(joined.merge(others, on=["date", "ticker"]).set_index("date").drop(columns="always_up"))
    assert parsed == [Path("known.parquet"), Path("changed.parquet")]  # once each, whatever the number of folds
    assert all(len(frame) == 24 * 12 and frame.notna().all(axis=None) for frame in found)
    pd.testing.assert_frame_equal(found[0][:"2010-07"], found[1][:"2010-07"], check_exact=True)
    later = [frame["2010-09":].drop(columns="ticker") for frame in found]  # momentum leaves out the last month
    assert (later[0] != later[1]).mean().min() > 0.9  # each column shows a difference where there is one


def test_the_metrics_of_a_fold_are_those_of_its_predictions(walked: Path) -> None:
    from lightning_cnn.evaluation.returns.measures import Settings, evaluate
    from lightning_cnn.evaluation.returns.predictions import panel, read_predictions

    folder = child_runs(walked)[FOLDS[0]]
    found = evaluate(panel(read_predictions(folder / "predictions.parquet")), Settings()).metrics()
    logged = record(folder)["metrics"]
    for name in ("acc", "up_rate", "auc", "auc_month", "ic", "ic_t", "ic_positive", "ece"):
        assert found[f"test/{name}"] == pytest.approx(logged[f"test/{name}"], abs=1e-4), name


def test_the_report_is_written(walked: Path) -> None:
    page = (walked / "report.html").read_text()
    facts = "simulated, no market", "SyntheticReturns, recipe point_in_time"
    for text in (*facts, "12-1 momentum", "gradient boosting"):
        assert text in page
    assert "expanding windows, 12 months a test, 1 month purged before it" in page
    assert len(list((walked / "figures").glob("*.png"))) == 7
    lines = (walked / "metrics.csv").read_text().splitlines()
    assert "fold/auc" in lines[0] and len(lines) == 5  # three folds, and the whole


def test_the_other_verbs_see_one_run(walked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs_dir", str(walked.parents[1])]
    assert main(["compare", "--json", *runs]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["id"] == walked.name and row["metrics"]["test/ic"] == record(walked)["metrics"]["test/ic"]
    assert main(["compare", *runs]) == 0
    assert "test/ic" in capsys.readouterr().out
    assert main(["list", "runs", "--json", *runs]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)["runs"]] == [
        f"{walked.parent.name}/{walked.name}"
    ]
    assert len(list(walked.rglob("*.hparams"))) == 1  # TensorBoard's table of settings has one row, too
    assert main(["train", "--resume", walked.name, *runs]) == 2
    assert "walkforward --resume" in capsys.readouterr().err


def test_a_training_has_a_report_too(walked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--wandb", "disabled", "--trainer.enable_progress_bar", "false"]) == 0
    folder = only_run()
    assert capsys.readouterr().out.rstrip().endswith("best.ckpt --prices FILE")
    assert main(["report", folder.name]) == 0
    out = capsys.readouterr().out
    assert "12 months, 2019-01 to 2019-12, 480 predictions" in out and "gradient boosting" in out
    assert (folder / "report.html").is_file() and (folder / "figures" / "deciles.png").is_file()
    assert len(pd.read_parquet(folder / "predictions.parquet")) == 480
    assert f"{record(folder)['metrics']['test/auc']:.4f}" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "jobs"),
    [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)],
    ids=["SIGTERM, one process", "SIGINT", "SIGKILL"],
)
def test_a_stopped_walk_forward_is_interrupted(sent: signal.Signals, jobs: int) -> None:
    # of two jobs, one goes on with a third fold when the first two end at the same time
    last = "2019-12" if jobs > 1 else "2019-11"
    words = [*WALK, "--trainer.max_epochs", "30", "--last_test", last, "--jobs", str(jobs)]
    process = subprocess.Popen([*CALL, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("20"):  # the first fold is finished
            break
    while not (running := [path for path in Path("runs").glob("*/*/folds/*/*/run.json") if _running(path)]):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[sent]
    folder = only_run()
    deadline = time.monotonic() + 20
    while any(_alive(record(path.parent)["pid"]) for path in running) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert RunFolder.open(folder).status == "interrupted"
    if sent != signal.SIGKILL:
        assert all(RunFolder.open(path.parent).status == "interrupted" for path in running)


def _running(path: Path) -> bool:
    return bool(json.loads(path.read_text())["status"] == "running")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train_months", "70"], "too few months for one fold"),
        (["--first_test", "2012-01"], "leaves 0 months of training"),
        (["--scheme", "growing"], "--scheme growing"),
        (["--jobs", "0"], "--jobs"),
        (["--data.test_start", "2018-01"], "--data.test_start: set for each fold; use --first_test"),
        (["--data.recipe", "book"], "add --data.validate_on_test false"),
        (["--trainer.fast_dev_run", "true"], "--trainer.fast_dev_run keeps nothing"),
        (["--trainer.devices", "2"], "--jobs trains several folds in parallel"),
        (["--data.months", "12"], "12 months of prices are too few"),
        (["--wandb", "online"], "needs a login"),
        (["--train_month", "3"], "unknown option --train_month; did you mean --train_months"),
        (["--model.architecture", "returns_nn"], "returns_nn"),
        (["--deciles", "1"], "--deciles 1"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["walkforward", *WALK, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not any(Path("runs").glob("*/*"))


def test_other_data_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["walkforward", "--data", "Digits"]) == 2
    assert "a walk-forward needs monthly data: use MonthlyReturns" in capsys.readouterr().err


def test_what_can_not_be_resumed(walked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (walked / "run.json").read_text()
    where = ["--resume", str(walked)]
    mistakes: list[tuple[list[str], str]] = [
        ([*where, "--model.lr", "0.5"], "--model.lr 0.5: .* was started with 0.01"),
        ([*where, "--test_months", "6"], "--test_months 6: .* was started with 12"),
        (["--resume", "20260101-000000-0000"], "no run '20260101-000000-0000'"),
        (["--resume"], "--resume needs a run"),
        (["--resume", str(child_runs(walked)[FOLDS[0]])], "is no walk-forward: lightning-cnn train --resume"),
    ]
    for words, message in mistakes:
        assert main(["walkforward", *words]) == 2
        error = capsys.readouterr().err
        assert re.search(message, error) and error.count("\n") == 1
    with RunFolder.open(walked).held():
        assert main(["walkforward", *where]) == 2
        assert "is still being trained by process" in capsys.readouterr().err
    sums = walked / "folds" / "data.sha256"
    sums.write_text("of another file")
    assert main(["walkforward", *where]) == 2
    assert "the price file has changed since" in capsys.readouterr().err
    sums.write_text("")  # simulated returns have none
    assert (walked / "run.json").read_text() == before


def test_a_fold_that_reaches_into_its_test_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fit.train

    def leaking(config: Config, folder: Path) -> RunFolder | None:
        """Tests on months that it has trained on, as a wrong splitter would make it."""
        months = {"data.test_start": config["data"]["init_args"]["train_end"], "data.train_end": "2017-09"}
        return real(config.override(months), folder=folder)

    monkeypatch.setattr(fit, "train", leaking)
    with pytest.raises(RuntimeError, match="leak: training ends in"):
        main(["walkforward", *WALK, "--embargo", "3", "--last_test", "2018-11", "--data.embargo", "0"])
    assert record(only_run())["status"] == "failed"


def test_the_help_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["walkforward", "--help"]) == 0
    out = capsys.readouterr().out
    for name in ("scheme expanding|rolling", "test_months INT", "embargo INT", "jobs INT", "resume RUN", "cost_bps"):
        assert f"--{name}" in out
    assert "lightning-cnn walkforward" in out
