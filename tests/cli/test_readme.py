"""What the README and the manual show works as it stands there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_cnn.cli import VERBS, main

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
MANUAL = sorted((PROJECT / "docs").rglob("*.md"))
QUICK = ["--trainer.max_epochs", "1", "--wandb", "disabled"]


def block(language: str, word: str, pages: list[Path] | None = None) -> str:
    """The one code block of a language with a word in it, of some pages, else of the README."""
    texts = [README] if pages is None else [page.read_text() for page in pages]
    blocks = [found for text in texts for found in re.findall(rf"```{language}[^\n]*\n(.*?)```", text, re.DOTALL)]
    (found,) = {text for text in blocks if word in text}
    return str(found)


@pytest.mark.usefixtures("timm_registry")
def test_a_network_of_ones_own() -> None:
    Path("my_nets.py").write_text(block("python", "@register_model", MANUAL))
    assert main(["train", "--data", "Digits", "--model.architecture", "my_nets.tiny", *QUICK]) == 0
    (best,) = Path("runs").glob("*/*/checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", str(best)]) == 0


def test_a_data_set_of_ones_own() -> None:
    Path("my_data.py").write_text(block("python", "class Stripes", MANUAL))
    assert main(["train", "--data", "my_data.Stripes", *QUICK]) == 0
    (record,) = Path("runs").glob("*/*/run.json")
    assert json.loads(record.read_text())["metrics"]["test/acc"] == 1


def test_an_experiment_of_ones_own() -> None:
    Path("mine.yaml").write_text(block("yaml", "# LeNet5 on Digits with another learning rate", MANUAL))
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


def test_each_verb_has_a_page() -> None:
    table = (PROJECT / "docs/how-to/index.md").read_text()
    for verb in VERBS:
        (page,) = re.findall(rf"^\| \[`{verb}`\]\((\w+\.md)\)", table, re.MULTILINE)
        assert f"lightning-cnn {verb}" in (PROJECT / "docs/how-to" / page).read_text(), verb


def test_it_is_one_screen_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) < 150
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", README)
    assert len(links) > 40  # the manual is linked from here
    for name, anchor in links:
        assert (PROJECT / name).is_file(), name
        titles = re.findall(r"^#+ (.+)$", (PROJECT / name).read_text(errors="ignore"), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w]+", "-", title.lower()) for title in titles}, anchor


def test_every_figure_is_shown() -> None:
    pages = [PROJECT / "README.md", *MANUAL]
    shown = {
        (page.parent / name).resolve()
        for page in pages
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    }
    assert shown == {figure.resolve() for figure in (PROJECT / "docs/figures").iterdir()}
