"""`Config`: files, dicts and words become the same checked plain data, and refusals name the field."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typed import KINDS, typed_config

from lightning_cnn.cli.messages import as_typed
from lightning_cnn.cli.words import read_words
from lightning_cnn.config.config import Config
from lightning_cnn.config.messages import CALLBACKS
from lightning_cnn.config.schema import FIT, TRAIN
from lightning_cnn.datamodules.images.digits import Digits
from lightning_cnn.engine.build import Experiment
from lightning_cnn.errors import UserError
from lightning_cnn.modules import ImageClassifier

FOLDER = Path(__file__).parents[2] / "experiments"
EXPERIMENTS = [path for path in sorted(FOLDER.glob("*/*.yaml")) if path.parent.name not in ("kubernetes", "sweeps")]
# what is typed, and the one line that it gets
LINES = (Path(__file__).parent / "error_lines.txt").read_text().splitlines()

GOOD = {
    "data": {"class_path": "Digits", "init_args": {"batch_size": 16, "root": "2014-12-31"}},
    "model": {"class_path": "ImageClassifier", "init_args": {"architecture": "lenet5", "lr": 1e-2}},
    "trainer": {"limit_train_batches": 1, "limit_val_batches": 1.0},
    "experiment": "007",
}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_each_experiment_is_the_same_as_words_and_once_more_from_its_own_yaml(path: Path) -> None:
    """The words are those of the command in its second line."""
    program, verb, *words = path.read_text().splitlines()[1].removeprefix("# ").split()
    assert program == "lightning-cnn" and words[:2] == ["--config", path.stem]
    kind = KINDS[verb]
    config = read_words(kind, words).config()
    again = Config.load(yaml.safe_load(config.to_yaml()), kind=kind)
    assert again.values == config.values and list(again.values) == list(config.values)
    assert config.stem == config["experiment"] == path.stem and not config.differences(again.values)


def test_words_files_and_dicts_are_one() -> None:
    Path("good.yaml").write_text(yaml.safe_dump(GOOD))
    words = ["--data", "Digits", "--data.batch_size", "16", "--data.root", "2014-12-31", "--model.lr", "1e-2"]
    words += ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches=1.0", "--experiment", "007"]
    flat = {"data": {"class_path": "Digits", "batch_size": 16, "root": Path("2014-12-31")}, "model": {"lr": 1e-2}}
    numbers = {"trainer.limit_train_batches": np.int64(1), "trainer": {"limit_val_batches": np.float64(1.0)}}
    loaded = [
        typed_config("train", words),
        typed_config("train", ["-c", "good.yaml"]),
        Config.load("good.yaml"),
        Config.load(GOOD),
        Config.load({"model.lr": 1e-2, "model": "ImageClassifier"}, GOOD | {"model": {}}),
        Config.load({"trainer": numbers.pop("trainer")}, flat, numbers, experiment="007"),
    ]
    assert all(config.values == loaded[0].values for config in loaded)
    values = loaded[0].values
    assert type(values["trainer"]["limit_train_batches"]) is int and values["trainer"]["limit_val_batches"] == 1.0
    assert type(values["trainer"]["limit_val_batches"]) is float
    assert values["data"]["class_path"] == "lightning_cnn.datamodules.Digits"
    assert (
        values["model"]["init_args"]["architecture"] == "lenet5" and "num_classes" not in values["model"]["init_args"]
    )
    assert loaded[0].flat()["model.lr"] == 0.01 and values["data"]["init_args"]["root"] == "2014-12-31"


class Mine(ImageClassifier):
    """With defaults of its own."""

    def __init__(self, architecture: str = "linear", lr: float = 0.5, **options: Any) -> None:
        super().__init__(architecture, lr=lr, **options)


class Fewer(Mine):
    """Takes less from the data."""

    takes = ("in_channels", "image_size")


class Wide(Digits):
    """Says more of itself than its attributes."""

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"num_classes": 12}


def test_the_model_takes_what_the_data_says() -> None:
    config = Config.load({"data": "test_config.Wide", "model": "test_config.Mine"})
    assert "num_classes" not in config["model"]["init_args"]
    assert Experiment(config).model.hparams["num_classes"] == 12
    config = Config.load({"data": "test_config.Wide", "model": "test_config.Fewer", "model.num_classes": 11})
    hparams = Experiment(config).model.hparams
    assert (hparams["num_classes"], hparams["in_channels"], hparams["image_size"]) == (11, 1, 28)


def test_a_class_keeps_its_own_defaults() -> None:
    """Also where it takes the place of another that the data would choose."""
    for words in (["--model", "test_config.Mine"], ["--model.class_path", "test_config.Mine"]):
        model = typed_config("fit", ["--data", "Digits", *words])["model"]["init_args"]
        assert (model["architecture"], model["lr"]) == ("linear", 0.5)
    regressor = Config.load({"data": "SyntheticReturns", "model": "ReturnRegressor"})["model"]["init_args"]
    assert regressor["architecture"] == "returns_tcn"


@pytest.mark.parametrize(("words", "line"), zip(LINES[::2], LINES[1::2], strict=True))
def test_what_can_be_typed_wrong_gets_one_line(words: str, line: str) -> None:
    _, verb, *rest = words.split()
    with pytest.raises(UserError) as error:
        typed_config(verb, rest)
    said = as_typed(str(error.value))
    # what else is near depends on the classes that other tests have loaded
    assert said.startswith(line[:-1]) if line.endswith("…") else said == line


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"model": {"lrr": 3}},
            "unknown option `model.lrr`; did you mean `model.lr`, `model.min_lr` or `model.transfer`?",
        ),
        ({"model.lr": "fast"}, "`model.lr` fast: expected float"),
        ({"model.num_classes": 3}, "`model.num_classes` is set from the data: remove it"),
        ({"trainer": {"max_epochs": "many"}}, "`trainer.max_epochs` many: expected int"),
        ({"data.augment": {"policy": "auto"}}, "`data.augment` auto: expected one of none, trivial, rand"),
        ({"epochs": 3}, "unknown option `epochs`; did you mean `trainer.max_epochs`?"),
        ({"data": "Digist"}, "`data`: there is no 'Digist'; did you mean Digits"),
        ({"tags": ["a\x1b"]}, "`tags` 'a\\x1b': contains the control character \\x1b; remove it"),
        ({"model.lr": object()}, "`model.lr`: object is not plain data; expected a number, string, list or dict"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_from_python_the_line_names_the_field(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        Config.load({"data": "Digits"}, fields)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("- 1\n", "mine.yaml is not a configuration: expected `name: value` lines"),
        ("data: [MNIST\n", "mine.yaml, line 2 is not YAML (did not find expected ',' or ']')"),
        ("data: {class_path: Digits, init_args: {augment: {shft: 1}}}", "unknown option `data.augment.shft`; did you"),
        ("{}", "which data? Add `data` NAME (`list_data()`) or a `config` FILE"),
    ],
)
def test_a_file_that_is_wrong(content: str, line: str) -> None:
    Path("mine.yaml").write_text(content)
    with pytest.raises(UserError) as error:
        Config.load("mine.yaml")
    assert str(error.value).startswith(line)


def test_the_later_layer_wins_and_another_class_takes_what_it_knows() -> None:
    config = Config.load(GOOD, {"model": {"momentum": 0.1}, "trainer": {"limit_val_batches": 3}}, model={"lr": 0.5})
    arguments = config.values["model"]["init_args"]
    assert (arguments["lr"], arguments["momentum"], arguments["architecture"]) == (0.5, 0.1, "lenet5")
    assert config["trainer"]["limit_val_batches"] == 3 and config["trainer"]["limit_train_batches"] == 1
    other = Config.load(GOOD, data="SyntheticReturns", model={"class_path": "ReturnClassifier"})
    usual = Config.load(data="SyntheticReturns")
    assert other.values["model"]["init_args"] | {"architecture": ""} == usual.values["model"]["init_args"] | {
        "architecture": "",
        "lr": 0.01,
    }
    assert usual.values["model"]["class_path"] == "lightning_cnn.modules.ReturnClassifier"


def test_override_is_as_if_it_had_been_given() -> None:
    words = ["--data", "Digits", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/f1"]
    config = typed_config("fit", [*words, "--trainer.overfit_batches", "2"])
    changed = config.override({"model.lr": 0.5, "trainer.max_epochs": 3})
    assert changed.differences(config.values) == {
        "model.lr": (config.flat()["model.lr"], 0.5),
        "trainer.max_epochs": (10, 3),
    }
    assert type(changed["trainer"]["overfit_batches"]) is int and changed.kind == FIT
    given = changed.given
    assert given["trainer"]["callbacks"][0]["init_args"] == {"monitor": "val/f1"}  # no mode: nobody has given one
    assert given["model"]["init_args"] == {"lr": 0.5} and "seed_everything" not in given


def test_another_monitor_drops_the_mode_of_the_other() -> None:
    first = {"data": "Digits", "checkpoint": {"monitor": "val/acc", "mode": "max"}}
    assert Config.load(first, checkpoint={"monitor": "val/loss"})["checkpoint"]["mode"] is None
    assert Config.load(first, checkpoint={"monitor": "val/acc"})["checkpoint"]["mode"] == "max"
    assert (
        Config.load(first, {"checkpoint.monitor": "val/loss", "checkpoint.mode": "min"})["checkpoint"]["mode"] == "min"
    )


def test_callbacks_of_ours_are_found_before_they_are_imported() -> None:
    """Also where Lightning has one of the same name."""
    code = """
import sys
from lightning_cnn.config.config import Config
for name in ("BatchSizeFinder", "LearningRateFinder", "LayerFreezing"):
    chosen = {"class_path": name, "init_args": {"layers": "a", "epoch": 1} if name == "LayerFreezing" else {}}
    print(Config.load("digits_lenet5", trainer={"callbacks": [chosen]})["trainer"]["callbacks"][0]["class_path"])
assert not [name for name in sys.modules if name == "lightning_cnn.engine.build"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*CALLBACKS]


def test_words_say_what_is_no_field() -> None:
    words = read_words(TRAIN, ["--resume", "x", "--trust", "mine", "--ckpt_path=a.ckpt", "--model.lr", "1", "-c", "a"])
    assert (words.resume, words.trust, words.files, words.rest) == ("x", ["mine"], ["a"], ["--model.lr", "1"])
    assert words.fields == {"ckpt_path": "a.ckpt"} and not words.only_names_a_checkpoint
    assert read_words(KINDS["test"], ["--ckpt_path", "a.ckpt"]).only_names_a_checkpoint
    with pytest.raises(UserError, match="--resume needs a run: --resume RUN"):
        read_words(TRAIN, ["--resume"]).named_run("RUN")


def test_fields_and_functions_as_they_are_typed() -> None:
    assert as_typed("`model.lr` x: see `list_data()` and `lightning-cnn list runs`, `name: value`") == (
        "--model.lr x: see `lightning-cnn list data` and `lightning-cnn list runs`, `name: value`"
    )
