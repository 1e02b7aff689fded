"""Every command and every block of Python in the README and the manual works as it stands there.

The commands of a page are run one after the other in a folder with small data under the names that the pages use. Two
batches of one epoch stand for a training. See `doc_pages` for what is only parsed.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from doc_pages import Block, Command, blocks, commands, inline_commands, pages
from image_sets import write_boxes, write_folder, write_table
from mask_sets import write_folder as write_masks
from price_files import panel, write
from pytorch_lightning import Callback
from shapes import write_scenes
from small_data import write_cifar10, write_image_folder, write_mnist
from svhn_files import write_numbers, write_svhn
from typed import KINDS, typed_config

from lightning_cnn.cli import VERBS, main
from lightning_cnn.engine import build
from lightning_cnn.engine.trainer import make_trainer
from lightning_cnn.figures.callback import Figures

PROJECT = Path(__file__).parents[1]
PAGES = pages(PROJECT)
MOST_NOT_RUN = 25  # blocks of all pages together
LIMITS = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1, "accelerator": "cpu"}
# what makes a data set small, added to the commands that name it
SMALL = {
    "CIFAR10": ["--data.check_md5", "false"],
    "ImageFolder": ["--data.image_size", "32"],
    "ImageTable": ["--data.image_size", "32"],
    "ImageValues": ["--data.image_size", "32"],
    "SVHN": ["--data.check_md5", "false"],
    "SyntheticNumbers": ["--data.train_images", "60", "--data.test_images", "20"],
    "SyntheticBoxes": ["--data.train_images", "60", "--data.test_images", "20"],
    "SyntheticShipBoxes": ["--data.train_images", "64", "--data.test_images", "16"],
    "SyntheticShips": ["--data.train_images", "64", "--data.test_images", "16"],
    "SyntheticReturns": ["--data.stocks", "30"],
}
# what makes a verb quick
SHORT = {
    "benchmark": ["--seconds", "0.01", "--batch_size", "2"],
    "filters": ["--size", "32", "--steps", "1"],
    "submit": ["--dry_run"],
    "sweep": ["--jobs", "1"],
    "walkforward": ["--jobs", "1", "--first_test", "2017-01"],
}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT).with_suffix("")))


@pytest.fixture(scope="session")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data in real formats, under the names that the pages use."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(root / "data", name, train=300, test=100)
    write_cifar10(root / "data", train=100, test=40)
    write_svhn(root / "data")
    write_numbers(root / "data", {"train": 20, "test": 6})
    classes = {f"{part}/{name}": count for part, count in (("train", 12), ("test", 4)) for name in ("cat", "dog")}
    write_folder(root / "my_photos", classes, side=40, ending="jpg")
    write_folder(root, {"photos": 3}, side=40, ending="jpg")
    shutil.copytree(root / "photos", root / "new_photos")
    shutil.copy(root / "photos" / "000.jpg", root / "photo.jpg")
    write_boxes(root / "my_boxes")
    write_folder(root / "tagged_photos", {"train/all": 12, "test/all": 6}, side=40, ending="jpg")
    write_table(root / "tagged_photos", "train/all", "test/all")
    shutil.copytree(root / "tagged_photos", root / "measured_photos")
    write_folder(root / "labeled_photos", {"scans": 12}, side=40, ending="jpg")
    rows = [f"scans/{number:03d}.jpg,{('healthy', 'ill')[number % 2]},{number // 2}" for number in range(12)]
    (root / "labeled_photos" / "labels.csv").write_text("\n".join(["file,label,patient", *rows]))
    write_masks(root / "my_cells", count=8)
    write_image_folder(root / "digits", classes=1, count=3, parts=("crops",))
    (root / "digits" / "crops" / "digit_0").rename(root / "crops")
    write_scenes(root / "my_scenes")
    shutil.copy(root / "my_scenes" / "test" / "images" / "00.png", root / "scene.png")
    closes = panel(stocks=20, start="2000-12", end="2017-12")
    write(closes, root / "prices.parquet")
    write(closes.loc["2010":], root / "new_prices.parquet")  # type: ignore[misc]
    write(closes.loc["2010":].pct_change(), root / "new_returns.parquet")  # type: ignore[misc]
    return root


@pytest.fixture
def at_work(furniture: Path, tmp_path: Path, timm_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a page. Trainings are short, have no figures, and download no weights."""
    shutil.copytree(furniture, tmp_path, dirs_exist_ok=True)
    for hook in ("on_fit_start", "on_train_end", "on_fit_end", "on_test_end"):
        monkeypatch.setattr(Figures, hook, getattr(Callback, hook))
    load = timm.models._builder.load_pretrained

    def short(**arguments: Any) -> Any:
        given = {name: value for name in LIMITS if (value := arguments.get(name)) not in (None, 1.0, "auto")}
        return make_trainer(**{**arguments, **LIMITS, **given})

    def at_hand(model: Any, pretrained_cfg: Any = None, **more: Any) -> None:
        found = pretrained_cfg or model.pretrained_cfg
        if found.get("state_dict") if isinstance(found, dict) else found.state_dict:  # of `model.weights`
            load(model, pretrained_cfg=pretrained_cfg, **more)

    monkeypatch.setattr(build, "make_trainer", short)
    monkeypatch.setattr("timm.models._builder.load_pretrained", at_hand)


@pytest.mark.ci
@pytest.mark.usefixtures("at_work")
@each_page
def test_its_commands_and_blocks_run(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    variables: dict[str, str] = {}
    for block in blocks(text):
        where = f"{page.relative_to(PROJECT)}, line {block.line}"
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.content)
        elif block.language in ("python", "py"):
            code = compile(block.content, where, "exec")
            if block.is_run:
                exec(code, names)
        elif block.language in ("yaml", "yml"):
            yaml.safe_load(block.content)
        for command in commands(block, variables):
            with monkeypatch.context() as patch:
                for name, value in command.variables.items():
                    patch.setenv(name, value)
                if block.is_run and "TORCHRUN" not in command.variables and command.words[:1] != ["dashboard"]:
                    exit_code = run(command)
                    assert exit_code == 0, f"{where}: {command.text}\n{capsys.readouterr().err[-2000:]}"
                else:
                    check(command, capsys)
    for command in inline_commands(text):
        check(command, capsys)


def run(command: Command) -> int:
    """Runs a command in its short form. Returns the exit code."""
    words = [_resolved(word, command.words[:index]) for index, word in enumerate(command.words)]
    verb = words[0] if words else "--help"
    if {"--help", "--help_all", "--print_config", "--dry_run"} & {*words}:
        with suppress(SystemExit):
            return main(words)
        return 0
    words += _small(words)
    if verb in ("train", "fit", "walkforward", "sweep") and not {"--launcher", "--ckpt_path"} & {*words}:
        words += ["--trainer.max_epochs", str(_epochs(words))]
    if verb == "sweep":
        words += ["--dry_run"] if "--launcher" in words else ["--trials", "3" if "--resume" in words else "2"]
    return main([*words, *SHORT.get(verb, [])])


def check(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Parses a command without running it; of verbs that don't train only the names of the options."""
    verb, *words = command.words or ["--help"]
    if verb in KINDS and not {"--resume", "--launcher", "--help", "--help_all", "--ckpt_path"} & {*words}:
        typed_config(verb, words)
        return
    known = "--version --resume --launcher"
    for asked in [[verb, "--help"]] + [["train", "--help"]] * (verb in ("features", "show", "submit", "sweep")):
        with suppress(SystemExit):
            assert main([word for word in asked if not word.startswith("--") or word == "--help"]) == 0, command.text
        known += capsys.readouterr().out
    wrong = [word for word in words if word.startswith("--") and word.split("=")[0].split(".")[0] not in known]
    assert not wrong, command.text


def _resolved(word: str, before: list[str]) -> str:
    """Placeholders of runs are those of the latest run of the page, or of the latest of an experiment."""
    runs = sorted(Path("runs").glob("*/*/run.json"), key=lambda file: file.stat().st_mtime_ns)
    if found := re.search(r"runs/(\w+)/ID\b", word):
        of_name = runs if found[1] == "NAME" else [run for run in runs if run.parts[1] == found[1]]
        return word.replace(found[0], str(of_name[-1].parent))
    if word in ("ID", "RUN") or (word == "NAME" and before[-1:] == ["--resume"]):
        return str(runs[-1].parent)
    return word


def _small(words: list[str]) -> list[str]:
    """What makes the data of a command small."""
    if words[0] not in (*KINDS, "show", "features") or {"--resume", "--ckpt_path", "--help_all"} & {*words}:
        return []
    small = ["--data.batch_size", "8"] if words[0] in ("train", "fit") else []
    given = [word for option, word in pairwise(words) if option == "--data"]
    for name in (word for option, word in pairwise(words) if option == "--config"):
        file = Path(name) if Path(name).is_file() else next((PROJECT / "experiments").rglob(f"{name}.yaml"))
        data = yaml.safe_load(file.read_text()).get("data")
        given += [data["class_path"] if isinstance(data, dict) else data] if data else []
    return small + [word for name in given for word in SMALL.get(name.rpartition(".")[2], [])]


def _epochs(words: list[str]) -> int:
    """One epoch; of a run that goes on one more than it has."""
    if "--resume" not in words:
        return 1
    record = Path(words[words.index("--resume") + 1], "run.json")
    return int(json.loads(record.read_text())["epochs"]) + 1 if record.is_file() else 1


def _all(pick: Callable[[Block], bool]) -> Iterator[Block]:
    return (block for page in PAGES for block in blocks(page.read_text(encoding="utf-8")) if pick(block))


def test_few_are_not_run() -> None:
    code = [*_all(lambda block: block.language in ("python", "py") or any(commands(block, {})))]
    not_run = [block for block in code if not block.is_run]
    assert len(not_run) <= min(MOST_NOT_RUN, len(code) / 3), [block.content for block in not_run]


def test_every_verb_is_run() -> None:
    shown = {command.words[0] for block in _all(lambda block: block.is_run) for command in commands(block, {})}
    assert {*VERBS} <= shown
