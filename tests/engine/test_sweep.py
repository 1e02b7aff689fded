"""Sweeps: trials are runs, the validation data choose, and what was begun goes on."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml
from run_folders import record, runs_in_order
from typed import typed, typed_config

from lightning_cnn.cli import main
from lightning_cnn.config.config import Config
from lightning_cnn.engine.sweep import Sweep, sweep
from lightning_cnn.engine.sweep.settings import SWEEP, SweepSettings
from lightning_cnn.errors import UserError

TINY = ["--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1", "--wandb", "disabled"]
FEW = ["--trainer.limit_train_batches", "4", "--trainer.limit_val_batches", "1"]
RATE = ["--search", "model.lr=log(1e-4,1e-1)"]
ENDLESS = """
import os, time
from pathlib import Path
from pytorch_lightning import Callback
from lightning_cnn.resume.signals import received

class Endless(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 3 and Path("endless").exists():
            Path(f"held_{os.getpid()}").touch()
            while not received():
                time.sleep(0.05)
"""
PICTURES = {"history.png", "importance.png"}
CALL = [sys.executable, "-m", "lightning_cnn", "sweep"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A finished sweep over four learning rates and sizes, the best of which is known before; from Python."""
    config = Config.load(
        {"data": "Digits", "model.architecture": "linear", "trainer.max_epochs": 1, "wandb": "disabled"},
        kind=SWEEP,
        search=["model.lr=[1e-6,0.01]", "data.batch_size=[64,128]"],
        sampler="grid",
        runs_dir=str(tmp_path_factory.mktemp("swept") / "runs"),
    )
    lines: list[str] = []
    with redirect_stdout(io.StringIO()) as out:
        result = sweep(config, on_trial=lines.append)
    assert out.getvalue() == "" and [line.split("  ")[0] for line in lines] == [f"trial {n} of 4" for n in range(1, 5)]
    return result


@pytest.fixture
def swept(found: Sweep) -> Path:
    """Its home."""
    return found.home


def test_a_sweep_says_what_it_has_found(found: Sweep) -> None:
    assert found.home.name == "digits_linear_sweep" and found.monitor == "val/loss" and found.jobs == []
    assert found.config == found.home / "best.yaml" and {path.name for path in found.figures} == PICTURES
    assert found.run is not None and found.run.record.best["value"] == found.value
    trials = found.trials
    assert [*trials.columns] == ["state", "value", "run", "model.lr", "data.batch_size"] and [*trials.index] == [
        1,
        2,
        3,
        4,
    ]
    assert {*trials["state"]} == {"finished"} and trials["value"].min() == found.value
    assert trials.loc[trials["value"].idxmin(), [*found.best]].to_dict() == found.best


def test_each_trial_is_a_run_of_its_own_settings(swept: Path) -> None:
    found = set()
    for folder in runs_in_order(swept):
        content = record(folder)
        assert content["status"] == "finished" and content["name"] == "digits_linear_sweep" and content["epochs"] == 1
        assert not [name for name in content["metrics"] if name.startswith("test")]  # no trial sees the test data
        assert (folder / "checkpoints" / "best.ckpt").is_file()
        config = yaml.safe_load((folder / "config.yaml").read_text())
        found.add((config["model"]["init_args"]["lr"], config["data"]["init_args"]["batch_size"]))
        assert content["command"] == f"lightning-cnn fit --config {folder / 'config.yaml'}"
    assert found == {(1e-6, 64), (1e-6, 128), (0.01, 64), (0.01, 128)}


def test_the_best_by_the_validation_is_written_and_can_be_trained(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = {folder: record(folder)["best"]["value"] for folder in runs_in_order(swept)}
    best = min(losses, key=lambda folder: losses[folder])
    text = (swept / "best.yaml").read_text()
    assert best.name in text.splitlines()[0] and f"val/loss {losses[best]:.6g}" in text.splitlines()[0]
    config, of_the_run = yaml.safe_load(text), yaml.safe_load((best / "config.yaml").read_text())
    assert config["model"] == of_the_run["model"] and config["data"] == of_the_run["data"]
    assert config["model"]["init_args"]["lr"] == 0.01  # with 1e-6 nothing is learned in one epoch
    assert main(["train", "--config", str(swept / "best.yaml")]) == 0
    (folder,) = (swept.parent / "digits_linear_sweep_best").iterdir()
    again = record(folder)
    assert again["best"]["value"] == pytest.approx(losses[best], abs=1e-6) and again["metrics"]["test/acc"] > 0.5
    capsys.readouterr()
    assert main(["compare", "--json", "--runs_dir", str(swept.parent), swept.name]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 4 and {row["settings"]["model.lr"] for row in rows} == {1e-6, 0.01}


def test_the_figures_are_made(found: Sweep) -> None:
    from PIL import Image

    for path, least in zip(found.figures, (300, 150), strict=True):
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.width > 600 and picture.height > least
            assert len(set(picture.convert("RGB").getdata())) > 20


def test_a_sweep_goes_on_and_repeats_nothing(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--runs_dir", str(swept.parent)]
    before = {path: path.stat().st_mtime_ns for path in swept.glob("*/run.json")}
    assert main(["sweep", "--resume", swept.name, *words]) == 0
    assert "0 of them not yet trained" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in swept.glob("*/run.json")} == before
    for changed, telling in (
        (["--search", "model.lr=[1e-6,0.02]"], "--search"),
        (["--sampler", "random"], "--sampler random"),
        (["--model.optimizer", "sgd"], "--model.optimizer sgd"),
    ):
        assert main(["sweep", "--resume", swept.name, *words, *changed]) == 2
        assert telling in (line := capsys.readouterr().err) and "was started with" in line
    assert main(["sweep", *TINY, *RATE, *words]) == 2
    assert f"sweep --resume {swept}" in (line := capsys.readouterr().err) and "--experiment NAME" in line
    assert main(["sweep", "--resume", "digits_linear_swep", *words]) == 2
    assert f"did you mean {swept.name}?" in capsys.readouterr().err


def test_hopeless_trials_are_pruned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_cnn.engine.sweep.study.FIRST_TO_PRUNE", 2)
    search = ["--search", "model.lr=[0.009,0.01,1e-7]", "--sampler", "grid", "--prune", "true"]
    words = [*TINY, *search, "--trainer.max_epochs", "3", *FEW]
    assert main(["sweep", *words]) == 0
    assert "2 finished, 1 pruned" in capsys.readouterr().out
    runs = [record(folder) for folder in runs_in_order(Path("runs/digits_linear_sweep"))]
    assert [run["status"] for run in runs] == ["finished"] * 2 + ["pruned"]
    assert [run["epochs"] for run in runs] == [3] * 2 + [2]  # the first epoch is too early to say
    assert "worse than most" in runs[-1]["error"] and "val/loss" in runs[-1]["error"]
    assert main(["train", "--resume", runs[-1]["id"]]) == 0  # it goes on, if somebody wants to see
    assert record(runs_in_order(Path("runs/digits_linear_sweep"))[-1])["epochs"] == 3


def test_a_trial_is_not_pruned_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its steps as by its epochs."""
    monkeypatch.setattr("lightning_cnn.engine.sweep.study.FIRST_TO_PRUNE", 2)
    search = ["--search", "model.lr=[0.009,0.01,1e-7]", "--sampler", "grid", "--prune", "true"]
    steps = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "8", "--trainer.limit_train_batches", "4"]
    assert main(["sweep", *TINY, *search, *steps, *FEW]) == 0
    runs = [record(folder) for folder in runs_in_order(Path("runs/digits_linear_sweep"))]
    assert [run["status"] for run in runs] == ["finished"] * 3


def test_a_trial_that_fails_does_not_end_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--search", "model.lr=[0.01,1e38]", "--sampler", "grid"]
    steps = [*FEW, "--trainer.max_epochs", "2", "--model.optimizer", "sgd", "--checkpoint.monitor", "val/acc"]
    assert main(["sweep", *TINY, *steps, *search, "--experiment", "rates"]) == 0
    out = capsys.readouterr().out
    assert "1 finished, 1 failed" in out and "trial 2 of 2  model.lr=1e+38  the training loss is NaN or infinite" in out
    best = yaml.safe_load(Path("runs/rates/best.yaml").read_text())
    assert best["experiment"] == "rates_best" and best["model"]["init_args"]["lr"] == 0.01


BROKEN = """
from lightning_cnn.modules import ImageClassifier

class Broken(ImageClassifier):
    def loss(self, batch):
        raise RuntimeError("shapes don't fit")
"""


def test_trials_that_all_crash_alike_end_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(BROKEN)
    words = ["sweep", "--data", "Digits", "--model", "mine.Broken", "--model.architecture", "linear", *RATE]
    assert main([*words, "--trials", "9", "--experiment", "broken", "--wandb", "disabled"]) == 2
    printed = capsys.readouterr()
    assert "every trial so far has failed: RuntimeError: shapes don't fit (runs/broken/sweep/logs)" in printed.err
    assert len(runs_in_order(Path("runs/broken"))) == 3
    assert "shapes don't fit (runs/broken/sweep/logs/trial_001.txt)" in printed.out


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_signal_stops_all_jobs_and_the_sweep_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Two jobs in processes, stopped in their first trials; then two processes of their own share what is left."""
    Path("mine.py").write_text(ENDLESS)
    Path("endless").touch()
    words = [*TINY, *RATE, "--trials", "4", "--jobs", "2", "--trainer.callbacks+=mine.Endless"]
    started = subprocess.Popen([*CALL, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    home = Path("runs/digits_linear_sweep")
    try:
        wait_for(lambda: len([*Path().glob("held_*")]) == 2)
        started.send_signal(signal.SIGTERM)
        out, _ = started.communicate(timeout=120)
    finally:
        started.kill()
    assert started.returncode == 143 and "sweep --resume digits_linear_sweep" in out
    stopped = runs_in_order(home)
    assert [record(folder)["status"] for folder in stopped] == ["interrupted"] * 2
    assert not [*(home / "sweep" / "workers").glob("[!.]*")]
    Path("endless").unlink()
    again = ["--resume", home.name, "--trials", "3", "--jobs", "1"]
    other = subprocess.Popen([*CALL, *again], stdout=subprocess.PIPE, text=True)
    assert main(["sweep", *again]) == 0
    out = capsys.readouterr().out + other.communicate(timeout=240)[0]
    assert other.returncode == 0
    assert sorted(re.findall(r"^trial (\d) of 3", out, re.MULTILINE)) == ["1", "2", "3"]
    assert runs_in_order(home)[:2] == stopped  # they have gone on
    finished = [record(folder) for folder in runs_in_order(home)]
    assert [run["status"] for run in finished] == ["finished"] * 3
    assert len({re.findall(r"--model.lr (\S+)", run["command"])[0] for run in finished}) == 3


def wait_for(happened: Callable[[], bool]) -> None:
    """Waits until something has happened."""
    for _ in range(5000):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within eight minutes")


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        ([], "a sweep needs --search"),
        (["--search", "model.lrr=log(1e-4,1e-1)"], "unknown option --model.lrr; did you mean --model.lr"),
        (["--search", "data.batch_size=[32,0]"], "--search data.batch_size 0: it must be at least 1"),
        (["--search", "data.batch_size=[32,abc]"], "--search data.batch_size abc: expected int"),
        (["--search", "model.lr=uniform(-1,1)"], "--search model.lr, with -1.0"),
        (["--search", "model.architecture=[linear,lenet6]"], "with lenet6: unknown --model.architecture"),
        (
            ["--data", "RotatedDigits", "--search", "model.loss=[mse,mae]"],
            "--search model.loss: the val/loss of different losses can't be compared; choose by another metric",
        ),
        (
            ["--config", "mnist_capsnet_small", "--data", "Digits", "--search", "model.reconstruction_weight=[0,1]"],
            "--search model.reconstruction_weight: the val/loss of different losses can't be compared",
        ),
        ([*RATE, "--sampler", "grid"], "write model.lr=[a,b,c], or use --sampler random or tpe"),
        ([*RATE, "--sampler", "tpee"], "one of tpe, random, grid"),
        ([*RATE, "--trials", "0"], "--trials 0: it must be at least 1"),
        ([*RATE, "--trails", "3"], "did you mean --trials"),
        ([*RATE, "--trainer.devices", "2"], "--jobs trains several trials"),
        ([*RATE, "--trainer.fast_dev_run", "true"], "--trials 2 --trainer.max_epochs 1"),
        ([*RATE, "--checkpoint.monitor", "test/acc"], "cannot select the checkpoint"),
        ([*RATE, "--checkpoint.monitor", "train/loss"], "expected a validation metric"),
        (
            [*RATE, "--trials", "1", "--checkpoint.monitor", "val/los"],
            "error: --checkpoint.monitor val/los: there is no such metric",
        ),
        ([*RATE, "--data", "SyntheticReturns", "--data.recipe", "book"], "the test would select the settings"),
        (["--resume"], "--resume needs a sweep"),
        (["--resume", "nothing"], "no sweep 'nothing' under runs/"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_be_typed_wrong(words: list[str], telling: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *([] if "--data" in words or "--resume" in words else TINY), *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert telling in line and len(line) < 300
    assert not [*Path("runs").glob("*")]


@pytest.mark.parametrize(
    ("search", "telling"),
    [
        (["model.lr"], "expected NAME=log(a,b)"),
        (["lr=log(1e-4,1e-1)"], "expected a setting such as model.lr"),
        (["model.lr=lgo(1e-4,1e-1)"], "model.lr=lgo(1e-4,1e-1): expected log(a,b)"),
        (["model.lr=log(0,1)"], "expected a logarithmic range above 0"),
        (["model.lr=log(1,a)"], "expected numbers as the ends"),
        (["model.lr=log(1,0.1)"], "expected a lower end below the upper end"),
        (["data.batch_size=int(1.5,3)"], "expected integers"),
        (["data.batch_size=[]"], "expected choices such as [a,b,c]"),
        (["data.batch_size=[32,32]"], "a choice is given twice"),
        (["model.lr=log(1e-4,1e-1)", "model.lr=[1,2]"], "model.lr is given twice"),
        (["data.val_split=[first,last]"], "use the same data and metric"),
        (["data.embargo=[0,1]"], "use the same data and metric"),
    ],
)
def test_what_can_not_be_searched(search: list[str], telling: str) -> None:
    with pytest.raises(UserError, match=f"^`search` .*{re.escape(telling)}"):
        SweepSettings(search)


def test_numbers_of_jobs() -> None:
    with pytest.raises(UserError, match="`jobs` 0: it must be at least 1"):
        SweepSettings(["model.lr=[1,2]"], jobs=0)


def test_our_example_is_a_sweep() -> None:
    words = ["--config", "digits_lenet5", "--config", "sweeps/digits_lenet5"]
    config = typed_config("sweep", words)
    settings = SweepSettings(config["search"], config["trials"])
    assert [*settings.space] == ["model.lr", "model.weight_decay", "data.batch_size"]
    assert settings.trials == 20
    searched = typed_config("sweep", [*words, *RATE, "--search", "data.batch_size=[32,64]"])["search"]
    assert searched == ["model.lr=log(1e-4,1e-1)", "data.batch_size=[32,64]"]


def test_what_wandb_starts_in_its_own_sweep_is_a_training(project: Path) -> None:
    """With the code by which W&B's agent makes a command of what the server gives it."""
    from wandb.sdk.launch.sweeps import utils

    for file in (project / "experiments" / "sweeps").glob("wandb_*.yaml"):
        sweep = yaml.safe_load(file.read_text())
        assert sweep["metric"]["name"].startswith("val/")
        for end in ("min", "max"):
            sampled = {
                name: {"value": where.get(end, where.get("values", [0])[-1])}
                for name, where in sweep["parameters"].items()
            }
            arguments = utils.create_sweep_command_args({"args": sampled})
            command = utils.create_sweep_command([*sweep["command"]])
            at = command.index("${args}")
            command[at : at + 1] = arguments["args"]
            assert command[0] == "lightning-cnn"
            experiment = typed(command[1], command[2:])
            assert experiment.model.hparams["lr"] == sampled["model.lr"]["value"]
            assert experiment.data.batch_size == sampled["data.batch_size"]["value"]
