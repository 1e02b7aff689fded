"""Shipped experiments are found by name from any directory, and `experiments/README.md` lists them all."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typed import typed_config

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.config.config import Config

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "experiments"
OTHERS = ("kubernetes", "sweeps")
FILES = [path for path in sorted(FOLDER.glob("*/*.yaml")) if path.parent.name not in OTHERS]
ROW = re.compile(r"^\| \[`(\w+)`\]\(([\w/]+)\.yaml\) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall((FOLDER / "README.md").read_text())
PRICES = ["--data.prices", "prices.parquet"]


def test_names_are_unique_and_all_files_lie_in_a_folder() -> None:
    assert len(FILES) > 40 and not list(FOLDER.glob("*.yaml"))
    assert not [name for name, count in Counter(path.stem for path in FILES).items() if count > 1]


def test_the_readme_lists_each_file_once_and_says_what_its_first_line_says() -> None:
    assert sorted(place for _, place, *_ in ROWS) == [f"{path.parent.name}/{path.stem}" for path in FILES]
    for name, place, what, _, _ in ROWS:
        assert place.endswith(f"/{name}")
        assert (FOLDER / f"{place}.yaml").read_text().splitlines()[0] == f"# {what}"


def test_results_in_the_readme_are_those_of_the_documentation() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")]
    known = " ".join(" ".join(path.read_text().split()) for path in pages)
    for name, _, what, result, _ in ROWS:
        for number in re.findall(r"\d+\.\d+(?: %)?", result):
            assert number in known or number in what, f"{name}: {number}"


def test_the_list_holds_the_experiments_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "experiments"]) == 0
    folder, found = "", []
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(" "):
            found.append(f"{folder}/{line.split()[0]}")
        folder = folder if line.startswith(" ") else line
    assert found == [f"{path.parent.name}/{path.stem}" for path in FILES]
    frame = lc.list_experiments()
    assert [f"{folder}/{name}" for name, folder in frame.folder.items()] == found


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("train", ["--config", "mnist_lenet5"]),
        ("train", ["--config", "images/mnist_lenet5"]),
        ("fit", ["-c", "images/mnist_ffnn", "--config=mnist_lenet5"]),
        ("validate", ["--config", "mnist_lenet5"]),
        ("test", ["--config", "house_numbers/svhn_boxes_grid"]),
        ("sweep", ["--config", "mnist_lenet5", "--config", "sweeps/digits_lenet5", "--experiment", "mnist_lenet5"]),
        ("walkforward", ["--config", "returns/returns_point_in_time", *PRICES, "--experiment", "mnist_lenet5"]),
    ],
)
def test_each_verb_finds_them_by_name(verb: str, words: list[str]) -> None:
    config = typed_config(verb, words)
    assert config.values.get("experiment", "mnist_lenet5") == "mnist_lenet5"
    assert config.flat()["seed_everything"] == 42


def test_a_local_file_wins_and_is_named(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    Path("digits_lenet5.yaml").write_text("data: Digits\nmodel: {lr: 0.5}\n")
    Path("mine.yaml").write_text("data: Digits\nmodel: {lr: 0.25}\n")
    Path("mnist_lenet5").mkdir()

    def rate(name: str) -> Any:
        return yaml.safe_load(printed(name).out)["model"]["init_args"]["lr"]

    def printed(name: str) -> Any:
        with pytest.raises(SystemExit, match="0"):
            main(["train", "--config", name, "--print_config"])
        return capfd.readouterr()

    line = "using the file digits_lenet5.yaml, not the shipped images/digits_lenet5\n"
    assert printed("digits_lenet5").err == line
    assert rate("digits_lenet5") == 0.5 and rate("images/digits_lenet5") == 0.003 and rate("mnist_lenet5") == 0.01
    assert rate("mine") == rate("mine.yaml") == 0.25 and printed("mine").err == ""
    Path("digits_lenet5").write_text("data: Digits\nmodel: {lr: 0.125}\n")
    assert printed("digits_lenet5").err == line.replace(".yaml", "") and rate("digits_lenet5") == 0.125
    with caplog.at_level("INFO"):
        assert Config.load("digits_lenet5").flat()["model.lr"] == 0.125
    assert [f"{record.getMessage()}\n" for record in caplog.records] == [line.replace(".yaml", "")]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mnist_lennet5", "there is no configuration file mnist_lennet5; did you mean mnist_lenet5, "),
        ("images/mnist_lennet5", "did you mean mnist_lenet5, "),
        ("experiments/mnist_lenet5.yaml", "experiments/mnist_lenet5.yaml; did you mean mnist_lenet5?"),
        ("experiments/returns_honest.yaml", "; did you mean returns_point_in_time?"),
        ("experiments/sweeps/digits_lenet5.yaml", "; did you mean sweeps/digits_lenet5?"),
        ("mnist_lenet5.yaml", "; did you mean mnist_lenet5?"),
        ("kubernetes/train", "there is no configuration file kubernetes/train; "),
        ("../images/mnist_lenet5", "did you mean images/mnist_lenet5?"),
        ("", "configuration file"),
        ("n" * 5000, "configuration file"),
    ],
)
def test_mistyped_names_are_one_line(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and line in error and error.count("\n") == 1
    with pytest.raises(lc.UserError, match=re.escape(line.rstrip(", "))):
        lc.train(name)
