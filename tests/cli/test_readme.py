"""What the README shows works as it stands there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_cnn.cli import VERBS, main

README = (Path(__file__).parents[2] / "README.md").read_text()
QUICK = ["--trainer.max_epochs", "1", "--wandb", "disabled"]


def block(language: str, word: str) -> str:
    """The one code block of a language with a word in it."""
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if word in text]
    return str(found)


@pytest.mark.usefixtures("timm_registry")
def test_a_network_of_ones_own() -> None:
    Path("my_nets.py").write_text(block("python", "@register_model"))
    assert main(["train", "--data", "Digits", "--model.architecture", "my_nets.tiny", *QUICK]) == 0
    (best,) = Path("runs").glob("*/*/checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", str(best)]) == 0


def test_a_data_set_of_ones_own() -> None:
    Path("my_data.py").write_text(block("python", "ImageDataModule"))
    assert main(["train", "--data", "my_data.Stripes", *QUICK]) == 0
    (record,) = Path("runs").glob("*/*/run.json")
    assert json.loads(record.read_text())["metrics"]["test/acc"] == 1


def test_an_experiment_of_ones_own() -> None:
    Path("mine.yaml").write_text(block("yaml", "lenet5"))
    assert main(["train", "--config", "mine.yaml", *QUICK]) == 0
    (config,) = Path("runs/mine").glob("*/config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["lr"] == 0.01


def test_the_python_door() -> None:
    names: dict[str, Any] = {}
    exec(block("python", "lc.train"), names)
    assert names["run"].record.epochs == 3 and len(names["runs"]) == 1


def test_all_verbs_are_explained() -> None:
    for verb in VERBS:
        assert f"| `{verb}` | `lightning-cnn {verb}" in README


def test_pictures_exist() -> None:
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[2] / name).is_file(), name
