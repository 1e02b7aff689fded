import inspect
import json
import re
from pathlib import Path

import pytest
import timm
from run_folders import write_run
from timm.models import model_entrypoint

from lightning_cnn import architectures, datamodules  # noqa: F401  fills timm's registry
from lightning_cnn.cli import main
from lightning_cnn.datamodules import MonthlyReturns, SyntheticReturns
from lightning_cnn.datamodules.images.base import ImageDataModule
from lightning_cnn.engine import catalogue
from lightning_cnn.modules.image_classifier import ImageClassifier

OURS = {name for name in timm.list_models() if model_entrypoint(name).__module__.startswith("lightning_cnn.")}

LOADED = [getattr(datamodules, name) for name in datamodules.__all__]  # the room loads them on first use


def concrete(base: type) -> set[type]:
    """All classes below a class, from our package, that read data themselves."""
    below: set[type] = set()
    child: type
    for child in base.__subclasses__():
        below |= {child, *concrete(child)}
    reads = ("load", "open_parts")
    return {
        kind
        for kind in below
        if kind.__module__.startswith("lightning_cnn.")
        and any(getattr(kind, name) is not getattr(ImageDataModule, name) for name in reads)
    }


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an experiment, other YAML files and two runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_CNN_RUNS", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    sweeps = tmp_path / "experiments" / "sweeps"
    sweeps.mkdir(parents=True)
    (tmp_path / "experiments" / "digits_lenet5.yaml").write_text("# LeNet5 of mine\nmodel:\n  lr: 0.1\n# not this\n")
    (tmp_path / "experiments" / "defaults.yaml").write_text("# what all share\n")
    (sweeps / "rates.yaml").write_text("seed_everything: 0\n")
    best = {"metric": "val/acc", "value": 0.98765, "epoch": 3, "checkpoint": "checkpoints/best.ckpt"}
    write_run(tmp_path / "runs", "digits/20260101-100000-aaaa", best=best)
    write_run(tmp_path / "runs", "mnist/20260102-100000-bbbb", status="failed", start="2026-01-02T10:00:00+00:00")
    return tmp_path


def test_the_source_tells_what_the_registry_tells() -> None:
    assert {entry.name for entry in catalogue.architectures()} == OURS
    assert {entry.name for entry in catalogue.timm_networks()} == set(timm.list_models()) - OURS


@pytest.mark.parametrize("name", sorted(OURS))
def test_descriptions_of_networks_are_the_docstrings(name: str) -> None:
    (entry,) = [entry for entry in catalogue.architectures() if entry.name == name]
    assert entry.description == (inspect.getdoc(model_entrypoint(name)) or "").splitlines()[0] != ""


def test_descriptions_of_timm_belong_to_their_networks() -> None:
    found = {entry.name: entry.description for entry in catalogue.timm_networks()}
    wrong = [
        name
        for name, text in found.items()
        if text != next(iter((model_entrypoint(name).__doc__ or "").strip().splitlines()), "").strip()
    ]
    assert not wrong


def test_the_data_modules_are_the_classes_one_can_train_on() -> None:
    found = {entry.name for entry in catalogue.data_modules()}
    images = {kind.__name__ for kind in concrete(ImageDataModule) if not kind.__name__.startswith("_")}
    assert found == images | {"MonthlyReturns", "SyntheticReturns"}
    assert {entry.name for entry in catalogue.data_modules(("ImageDataModule",))} == images
    assert "MNIST" in found
    assert all(entry.description for entry in catalogue.data_modules())


@pytest.mark.parametrize(
    ("kind", "folder"),
    [(ImageClassifier, "modules"), (ImageDataModule, "datamodules")]
    + [(MonthlyReturns, "datamodules"), (SyntheticReturns, "datamodules")]
    + [(kind, "datamodules") for kind in sorted(concrete(ImageDataModule), key=lambda kind: kind.__name__)],
)
def test_options_are_those_of_the_signature(kind: type, folder: str) -> None:
    signature = inspect.signature(kind).parameters
    found = {option.name: option for option in catalogue.options(kind.__name__, folder)}
    assert list(found) == list(signature)
    for name, option in found.items():
        default = signature[name].default
        assert (option.default is None) == (default is inspect.Parameter.empty)
        assert option.default is None or eval(option.default) == default
        assert option.description, f"{kind.__name__} says nothing about {name}"


def test_everything_in_short(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in OURS)
    assert f"and {len(timm.list_models()) - len(OURS)} networks of timm" in out
    assert re.search(r"^  images\n(?:    .*\n)*    digits_lenet5 +A first run: ", out, re.MULTILINE)
    assert re.search(r"^  experiments\n    experiments/digits_lenet5.yaml +LeNet5 of mine\n\n", out, re.MULTILINE)
    assert not any(name in out for name in ("rates", "defaults", "kubernetes", "sweeps"))
    assert re.search(r"^  digits/20260101-100000-aaaa +finished +best val/acc 0.9877 +329 bytes$", out, re.MULTILINE)
    assert re.search(r"^  mnist/20260102-100000-bbbb +failed +226 bytes$", out, re.MULTILINE)
    assert "\n  resnet18 " not in out


def test_only_the_newest_runs_in_short(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(10, 20):
        write_run(workplace / "runs", f"more/2026{day}", start=f"2026-02-{day}T10:00:00+00:00")
    assert main(["list"]) == 0
    short = capsys.readouterr().out
    assert "aaaa" not in short
    assert "and 2 earlier" in short
    assert main(["list", "runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert "aaaa" in lines[0]
    assert "202619" in lines[-1]


def test_a_pattern_also_finds_timms_networks(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "architectures", "*NET1?"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "resnet18" in names
    assert "resnet18d" not in names
    assert main(["list", "architectures", "lenet"]) == 0  # without a wildcard: anywhere in the name
    assert set(capsys.readouterr().out.split()) >= {"lenet5", "lenet5_1998"}


def test_json(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"architectures", "data", "experiments", "runs"}
    assert {entry["name"] for entry in found["architectures"]} == OURS
    assert found["runs"][0]["best"]["value"] == 0.98765
    assert main(["list", "architectures", "resnet18", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["architectures"]
    assert {"name": "resnet18", "description": "Constructs a ResNet-18 model.", "from": "timm"} in entries


def test_columns_are_aligned_and_fit_the_terminal(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["list", "data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({re.match(r"\S+ +", line).end() for line in lines}) == 1  # type: ignore[union-attr]
    monkeypatch.setenv("COLUMNS", "60")
    for kind in ([], ["data"], ["architectures", "resnet*"]):
        assert main(["list", *kind]) == 0
        trimmed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("…")]
        assert trimmed
        assert all(len(line) == 60 for line in trimmed)


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["list", "--runs_dir", "elsewhere"]) == 0
    out = capsys.readouterr().out
    assert "    mnist_lenet5 " in out
    assert "no runs under elsewhere/" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["architecture"], "did you mean architectures?"),
        (["xyz"], "choose one of architectures, data, experiments, runs"),
        (["architectures", "resnt18"], "did you mean resnet18"),
        (["experiments", "nothing"], "see `lightning-cnn list experiments`"),
        (["--runsdir", "x"], "did you mean --runs_dir?"),
    ],
)
def test_mistakes(workplace: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_broken_run_is_a_row(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "runs/digits/20260101-100000-aaaa/run.json").write_text('{"id": ')
    assert main(["list", "runs"]) == 0
    out, err = capsys.readouterr()
    broken, whole = out.splitlines()
    assert re.match(
        r"digits/20260101-100000-aaaa +damaged +\d+ bytes +\S+/run.json can't be read \(Expecting value", broken
    )
    assert "bbbb" in whole and err == ""
