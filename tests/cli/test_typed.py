"""Values that a user types: options of the trainer, YAML, lists, paths, and streams that are closed."""

import csv
import io
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from refusals import refusing
from typed import typed_config

from lightning_cnn.cli import main
from lightning_cnn.cli.parser import parser_for
from lightning_cnn.config.config import Config
from lightning_cnn.engine.trainer import LEAST
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import PlainStream, with_paths

DIGITS = ["--data", "Digits", "--model.architecture", "linear", "--wandb", "disabled"]
DEEP = "[" * 1000 + "]" * 1000
NAMES = "abcdefghijklmnopqr"
LAUGHS = "{a: &a [x,x], " + ", ".join(f"k{new}: &{new} [*{old},*{old}]" for old, new in pairwise(NAMES)) + "}"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    run: Callable[..., str] = refusing("fit", capsys)
    return run


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        *((f"--trainer.{name} {least - 1}", f"it must be at least {least}") for name, least in LEAST.items()),
        ("--trainer.val_check_interval 0", "--trainer.val_check_interval 0: it must be a number above 0"),
        ("--trainer.min_steps 3 --trainer.max_steps 2", "--trainer.min_steps 3 is more than --trainer.max_steps 2"),
        ("--trainer.min_epochs 3 --trainer.max_epochs 2", "--trainer.min_epochs 3 is more than --trainer.max_epochs 2"),
        ("--trainer.precision bf16-true", "--trainer.precision bf16-true: data and weights are float32"),
        ("--trainer.precision 64-true", "use bf16-mixed or 16-mixed"),
        ("--trainer.precision 64", "use bf16-mixed or 16-mixed"),
        ("--seed_everything 5000000000", "--seed_everything 5000000000: it must be at least 0 and at most 4294967295"),
        ("--seed_everything -1", "at least 0"),
        ("--timeout_minutes 1e300", "it must be a number above 0 and at most 1000000"),
        ("--model.label_smoothing inf", "--model.label_smoothing inf"),
        ("--data.batch_size null", "--data.batch_size None: expected a number"),
        (f"--tags=[{'a' * 65}]", "--tags 'aaaaaaaaaaaaaaaaaaaa': 65 characters, but W&B takes 1 to 64"),
        ("--project a/b", "--project 'a/b': '/' is not allowed"),
        ("--trainer.logger MLFlowLogger", "MLFlowLogger can't be made: Requirement 'mlflow"),
        ("--trainer.callbacks ModelCheckpoint --trainer.callbacks.save_top_k -7", "ModelCheckpoint can't be made"),
        ("--data LightningDataModule", "which data?"),
        ("--data {", "--data: there is no '{'"),
        ("--data 2001-13-45", "--data: there is no '2001-13-45'"),
        (f"--data {DEEP}", "--data"),
        (f"--model.lr {DEEP}", "--model.lr"),
        (f"--tags {DEEP}", "--tags"),
        ("--model.optimizer_options LAUGHS", "--model.optimizer_options {a: &a [x,x]"),
        (f"--model.lr {'9' * 5000}", "--model"),
        ("--trainer.max_epochs INT", "--trainer.max_epochs"),
        ("--model.lr TIME", "--model.lr"),
        ("--ckpt_path=", "no checkpoint"),
        ("--ckpt_path 0.5", "there is no checkpoint 0.5"),
        ("--ckpt_path /dev/null", "there is no checkpoint /dev/null"),
        (f"--runs_dir {'x' * 300}", "a file name is too long, at most 255 bytes"),
        ("--resume a**", "no run 'a**'"),
        ("--model.dice_weight 1", "unknown option --model.dice_weight"),
        ("--data.augment.=x", "unknown option"),
        ("--model.lags 3", "is an option of Return"),
    ],
    ids=lambda value: value[:60],
)  # fmt: skip
def test_refused(words: str, telling: str, refused: Callable[..., str]) -> None:
    meant = {"LAUGHS": LAUGHS, "INT": "!!int abc", "TIME": "!!timestamp x"}
    line = refused(*DIGITS, *(meant.get(word, word) for word in words.split()))
    assert telling in line and len(line) < 600


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("trainer: {max_epochs: 1}\ndata: Digits\ntrainer: {devices: 1}\n", "bad.yaml, line 3 gives 'trainer' twice"),
        ("data: Digits\ntrainer: 3\n", "--trainer 3: expected fields, such as --trainer.max_epochs"),
        ("data: Digits\ntrainer: [1]\n", "--trainer [1]: expected fields"),
        ("data: Digits\ntags: null\n", "--tags has no value"),
        ("data: Digits\nproject:\n", "--project has no value"),
        ("data: Digits\nseed_everything: 2001-13-45\n", "bad.yaml is not YAML"),
        ("data: {}\n", "which data?"),
        ("data: null\n", "which data?"),
        ("data: Digits\nmodel: 3\n", "--model"),
        ("data: " + "[" * 150, "nested more than 100 levels deep"),
        ("data: " + "[" * 200_000, "nest"),  # by us, or from PyYAML 6.0.4 on by its parser
        ("data: " + LAUGHS, "over 100,000 values"),
    ],
    ids=lambda value: value[:40].replace("\n", "|"),
)  # fmt: skip
def test_refused_files(text: str, telling: str, refused: Callable[..., str]) -> None:
    Path("bad.yaml").write_text(text)
    assert telling in refused("--config", "bad.yaml")


def test_an_empty_block_changes_nothing() -> None:
    """`trainer:` above lines that are all comments."""
    Path("a.yaml").write_text("data: Digits\ntrainer:\n  # max_epochs: 3\ncheckpoint:\n")
    assert Config.load("a.yaml").values == Config.load({"data": "Digits"}).values


def test_a_training_that_ends_by_its_steps_is_validated() -> None:
    """Also in an epoch that would not be validated; it has not stopped early, and takes no part in a later end."""
    steps = "--trainer.max_steps 5 --trainer.max_epochs -1 --trainer.check_val_every_n_epoch 3 --trainer.min_epochs 2"
    assert main(["fit", *DIGITS, *steps.split()]) == 0
    (folder,) = Path("runs").glob("*/*")
    rows = _validated(folder)
    assert [row["step"] for row in rows] in (["4"], ["5"])
    best, last = (torch.load(folder / f"checkpoints/{kind}.ckpt", weights_only=True) for kind in ("best", "last"))
    assert best["global_step"] == last["global_step"] == 5
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in best["state_dict"].items())
    assert last["callbacks"]["LastCheckpoint"] == {"stopped_early": False}
    assert main(["fit", "--resume", folder.name, "--trainer.max_steps", "20"]) == 0
    rows = _validated(folder)
    assert len(rows) == 2
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 20


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("--trainer.max_epochs 3 --trainer.check_val_every_n_epoch 2", [8, 12]),
        ("--trainer.max_epochs 4 --trainer.check_val_every_n_epoch 2", [8, 16]),
        ("--trainer.max_epochs 1 --trainer.check_val_every_n_epoch 5", [4]),
        ("--trainer.max_epochs 2 --trainer.val_check_interval 3", [3, 7, 8]),
        ("--trainer.max_epochs 2 --trainer.val_check_interval 3 --trainer.check_val_every_n_epoch null", [3, 6, 8]),
        ("--trainer.max_epochs 3 --trainer.check_val_every_n_epoch 2 --trainer.min_steps 100", [8, 12]),
        ("--trainer.max_epochs 5 --trainer.max_steps 9 --trainer.check_val_every_n_epoch 2", [8, 9]),
    ],
)
def test_the_last_weights_are_validated(words: str, steps: list[int]) -> None:
    """Wherever the other validations are, and once."""
    words += " --trainer.limit_train_batches 4 --trainer.log_every_n_steps 1"
    assert main(["fit", *DIGITS, *words.split()]) == 0
    (folder,) = Path("runs").glob("*/*")
    assert [int(row["step"]) + 1 for row in _validated(folder)] == steps
    best, last = (torch.load(folder / f"checkpoints/{kind}.ckpt", weights_only=True) for kind in ("best", "last"))
    assert last["global_step"] == steps[-1] and best["global_step"] in steps
    assert last["callbacks"]["LastCheckpoint"] == {"stopped_early": False}


def _validated(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics that come from a validation."""
    return [row for row in csv.DictReader((folder / "metrics.csv").read_text().splitlines()) if row["val/loss"]]


def test_a_list_that_is_given_again_is_added_to() -> None:
    parser = parser_for("predict", "engine/predict")
    assert parser.parse_args(["--images", "a", "b", "--images", "c"]).images == ["a", "b", "c"]
    words = "--data Digits --tags=[a] --tags=[b,c] --trainer.callbacks RichProgressBar"
    stopping = "--trainer.callbacks=EarlyStopping --trainer.callbacks.monitor val/loss"
    config = typed_config("fit", [*words.split(), *stopping.split()])
    assert config["tags"] == ["a", "b", "c"]
    names = [each["class_path"].rpartition(".")[2] for each in config["trainer"]["callbacks"]]
    assert names == ["RichProgressBar", "EarlyStopping"]
    assert config["trainer"]["callbacks"][1]["init_args"]["monitor"] == "val/loss"


def test_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~` and variables in every form of every option that names files; never in a name that is there as it is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    home, scratch = str(tmp_path / "home/x"), str(tmp_path / "scratch/x")
    for words in (["--data.root", "~/x"], ["--data.root=~/x"], ["--data.root", "${HOME}/x"]):
        assert typed_config("fit", ["--data", "MNIST", *words])["data"]["init_args"]["root"] == home
    Path("a.yaml").write_text("data: {class_path: MNIST, root: $SCRATCH/x}\nruns_dir: ~/x\nproject: $SCRATCH\n")
    monkeypatch.setenv("HERE", os.getcwd())
    config = typed_config("fit", ["--config=$HERE/a.yaml"])
    assert config["data"]["init_args"]["root"] == scratch and config["runs_dir"] == home
    assert config["project"] == "$SCRATCH"
    assert Config.load({"data": "MNIST", "data.root": "~/x"})["data"]["init_args"]["root"] == home
    parser = parser_for("predict", "engine/predict")
    assert parser.parse_args(["--images=~/x", "--masks", "$SCRATCH/x", "--ckpt_path", "$NOPE/x"]).images == [home]
    assert with_paths({"ckpt_path": "$NOPE/x"}) == {"ckpt_path": "$NOPE/x"}
    Path("$SCRATCH").touch()
    assert with_paths(["$SCRATCH"], "images") == ["$SCRATCH"]


@pytest.mark.parametrize(
    ("closing", "words", "code"), [("2>&-", "trian", 2), (">&-", "--version", 0), ("2>&- >&-", "list x", 2)]
)
def test_closed_streams(closing: str, words: str, code: int) -> None:
    done = subprocess.run(["sh", "-c", f'"$0" -m lightning_cnn {words} {closing}', sys.executable], capture_output=True)
    assert done.returncode == code and b"Traceback" not in done.stderr


def test_messages_that_nobody_reads_end_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken:
        messages, output = PlainStream(broken, must_arrive=False), PlainStream(broken)
        messages.write("a" * 100_000)
        messages.flush()
        messages.write("b")
        with pytest.raises(BrokenPipeError):
            output.write("a" * 100_000)
        broken.write = None  # type: ignore[method-assign, assignment]
    PlainStream(None).write("nothing")


def test_a_locale_without_utf_8() -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    PlainStream(written).write("Ä 猫\n")
    written.seek(0)
    assert written.read() == "Ä \\u732b\n"


def test_a_pipe_is_read_once_and_gives_no_name() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"data: Digits\nmodel: {lr: 0.5}\n")
    os.close(writer)
    config = typed_config("fit", ["--config", f"/dev/fd/{reader}"])
    os.close(reader)
    assert config["model"]["init_args"]["lr"] == 0.5 and config.stem is None


def test_numbers_of_outputs_and_names() -> None:
    from lightning_cnn.engine.predict import _class_table

    assert _class_table(torch.ones(2, 1), ["one"], 3) == (["class", "probability"], [["one", 1.0], ["one", 1.0]])
    for outputs in (torch.ones(2, 1), torch.ones(2)):
        with pytest.raises(UserError, match="names 2 classes, but its model has"):
            _class_table(outputs, ["a", "b"], 3)
