"""How a training is computed: chosen once, told, recorded, and kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from run_folders import only_run
from torch import nn

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.engine import computing
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.computing import images_to_come
from lightning_cnn.modules.computing import Computing

WORDS = ["--data", "Digits", "--model.architecture", "lenet5", "--data.batch_size", "64", "--trainer.max_epochs", "1"]
WORDS += ["--trainer.limit_train_batches", "2", "--wandb", "disabled", "--trainer.num_sanity_val_steps", "0"]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what compiled networks are given, compiled by nobody."""
    seen: list[tuple[int, ...]] = []

    def note(graph: Any, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            shapes = [tuple(arg.shape) for arg in args if isinstance(arg, torch.Tensor) and arg.ndim == 4]
            seen.append(max(shapes, key=lambda shape: shape[-1]))  # images are larger than the weights
            return graph.forward(*args)

        return run

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: whole(self, backend=note, **options))
    torch.compiler.reset()
    return seen


def choose(monkeypatch: pytest.MonkeyPatch, compile: bool, channels_last: bool) -> None:
    """Lets the choice be this."""
    best = Computing(compile, channels_last, "of a reason")
    monkeypatch.setattr(computing, "best_computing", lambda *_: best)


def model_of(folder: Path) -> dict[str, Any]:
    """The settings of the model in the run's configuration."""
    found: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    return found


def test_whole_batches_of_the_training_are_compiled_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, graphs: list[tuple[int, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    choose(monkeypatch, True, True)
    words = [word for word in WORDS if word not in ("--trainer.limit_train_batches", "2")]
    assert main(["train", *words]) == 0
    rows = 1437 - 287  # of the training, of which 62 are in no whole batch
    assert len(graphs) >= rows // 64
    assert {shape[0] for shape in graphs} == {64}
    assert "chosen       --model.compile true, --model.channels_last true: of a reason" in capsys.readouterr().out


def test_a_choice_is_kept(monkeypatch: pytest.MonkeyPatch, graphs: list[tuple[int, ...]]) -> None:
    choose(monkeypatch, True, True)
    assert main(["train", *WORDS]) == 0
    folder = only_run()
    assert (model_of(folder)["compile"], model_of(folder)["channels_last"]) == (True, True)
    choose(monkeypatch, False, False)
    graphs.clear()
    assert main(["train", "--resume", folder.name, "--trainer.max_epochs", "2"]) == 0
    assert (model_of(folder)["compile"], model_of(folder)["channels_last"]) == (True, True)
    assert graphs
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert (saved["compile"], saved["channels_last"]) == (True, True)


def test_the_same_folder_once_more_keeps_it(monkeypatch: pytest.MonkeyPatch, graphs: list[tuple[int, ...]]) -> None:
    """As a job does that is started again by the same command."""
    monkeypatch.setenv("LIGHTNING_CNN_RUN", "runs/a/first")
    choose(monkeypatch, False, True)
    assert main(["train", *WORDS]) == 0
    choose(monkeypatch, True, False)
    assert main(["train", *WORDS]) == 0
    assert (model_of(only_run())["compile"], model_of(only_run())["channels_last"]) == (False, True)


@pytest.mark.parametrize("compile", ["true", "false"])
def test_what_is_given_is_not_chosen(
    compile: str, monkeypatch: pytest.MonkeyPatch, graphs: list[tuple[int, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    choose(monkeypatch, compile == "false", True)
    words = ["--model.compile", compile, "--model.channels_last", "false"]
    assert main(["train", *WORDS, *words]) == 0
    assert "chosen" not in capsys.readouterr().out and bool(graphs) == (compile == "true")


def test_a_hint_at_bfloat16(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(computing, "is_faster_in_bfloat16", lambda *_: True)
    assert main(["train", *WORDS]) == 0
    assert (
        "hint         with --trainer.precision bf16-mixed this CPU may train a third faster" in capsys.readouterr().out
    )
    assert main(["train", *WORDS, "--trainer.precision", "bf16-mixed"]) == 0
    assert "hint" not in capsys.readouterr().out


def test_boxes_and_returns_are_computed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "SyntheticReturns", "--data.stocks", "5", "--trainer.max_epochs", "1"]
    assert main(["train", *words, "--wandb", "disabled"]) == 0
    assert model_of(only_run())["compile"] is False and "chosen" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trainer", "images"),
    [
        ({"max_epochs": 3}, 3 * 1150),
        ({"max_epochs": 3, "limit_train_batches": 2}, 3 * 128),
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 3 * 575),
        ({"max_steps": 10}, 640),
        ({"max_epochs": 1, "max_steps": 1000}, 1150),
        ({"max_steps": 10, "accumulate_grad_batches": 2}, 1280),
        ({"fast_dev_run": True}, 64),
        ({"max_epochs": -1}, float("inf")),
        ({}, 10 * 1150),
    ],
)
def test_images_to_come(trainer: dict[str, Any], images: float) -> None:
    experiment = Experiment(lc.Config.load({"data": "Digits", "data.batch_size": 64, "trainer": trainer}))
    experiment.prepare("fit")
    assert images_to_come(experiment) == images


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "CapsuleClassifier", "--model.architecture", "capsnet_small"],
        ["--data", "SyntheticBoxes", "--data.train_images", "30", "--data.handwriting", "0", "--data.image_size", "32"],
    ],
    ids=["capsules", "boxes"],
)
def test_other_tasks_compile_whole_batches_too(words: list[str], graphs: list[tuple[int, ...]]) -> None:
    usual = ["--data", "Digits"] * ("--data" not in words)
    data = ["--data.batch_size", "8", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "2"]
    short = ["--trainer.max_epochs", "1", "--wandb", "disabled"]
    assert main(["fit", *usual, *words, *data, *short, "--model.compile", "true"]) == 0
    assert len(graphs) >= 2 and {shape[0] for shape in graphs} == {8}
