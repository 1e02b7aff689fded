import json
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import write_run

from lightning_cnn.cli import VERBS, main
from lightning_cnn.cli.help import training_help
from lightning_cnn.engine import catalogue

HEAVY = ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "timm", "wandb", "tensorboard", "jsonargparse")
IN_A_NEW_PROCESS = f"""
import json, sys
from lightning_cnn.cli import main
try:
    code = main(json.loads(sys.argv[1]))
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, sorted(set({HEAVY!r}) & set(sys.modules))]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["trian"],
        ["train", "--help"],
        ["fit", "--help"],
        ["sweep", "--help"],
        ["validate", "-h"],
        ["test", "--help"],
        ["list"],
        ["list", "architectures", "resnet*"],
        ["list", "--help"],
        ["compare"],
        ["compare", "--json", "--html", "page.html"],
        ["compare", "--sort", "nothing"],
        *(
            [verb, "--help"]
            for verb in ("predict", "show", "filters", "explain", "features", "probe", "export", "benchmark", "submit")
        ),
        ["dashboard", "--help"],
        ["dashboard", "--runs_dir", "elsewhere"],
    ],
    ids=" ".join,
)
def test_quick_answers_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "digits/1", {"model": {"lr": 0.1}}, [(1.0, 0.5), (0.9, 0.6)])
    call = [sys.executable, "-c", IN_A_NEW_PROCESS, json.dumps(words)]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    code, heavy = json.loads(done.stderr.splitlines()[-1])
    wrong = words[0] == "trian" or words[-1] in ("nothing", "elsewhere")
    assert code == (2 if wrong else 0), done.stderr
    assert heavy == []
    assert bool(done.stdout) != wrong


@pytest.mark.parametrize("verb", ["train", "fit", "sweep", "validate", "test"])
def test_the_short_help_names_the_options(verb: str) -> None:
    text = training_help(verb)
    assert text.splitlines()[0] == f"usage: lightning-cnn {verb} [options]"
    general = "config model data seed_everything ckpt_path print_config help_all"
    assert [name for name in general.split() if f"--{name}" not in text] == []
    assert [
        o.name for o in catalogue.options("ImageDataModule", "datamodules") if f"--data.{o.name} " not in text
    ] == []
    assert "MNIST" in text and "--data.recipe point_in_time|book" in text
    assert "--data.resize stretch|crop|pad\n" in text  # the type is only a name in the source of ImageFolder
    trains = verb in ("train", "fit", "sweep")
    tracking = ("--experiment NAME", "--runs_dir DIR", "--tags", "--wandb auto|online|offline|disabled", "--project")
    for part in (*tracking, "--resume RUN", "--model.lr FLOAT", "--trainer.max_epochs", "--checkpoint."):
        assert (part in text) == trains
    assert "--model.num_classes" not in text  # the data says it
    assert text.endswith("--help_all shows every option, Lightning's Trainer included.")


def test_the_short_help_of_train_has_every_option_of_the_model_and_the_checkpoints() -> None:
    text = training_help("train")
    linked = {"num_classes", "in_channels", "image_size"}
    model = {option.name for option in catalogue.options("ImageClassifier", "modules")} - linked
    assert [name for name in sorted(model) if f"--model.{name} " not in text] == []
    checkpoint = {option.name for option in catalogue.options("Checkpoints", "resume")}
    assert "monitor" in checkpoint
    assert [name for name in sorted(checkpoint) if f"--checkpoint.{name} " not in text] == []
    assert "--model.schedule none|cosine|linear|step" in text
    assert "(default: 1e-3)" in text or "(default: 0.001)" in text


def test_the_short_help_of_sweep_has_every_option_of_a_sweep_and_its_jobs() -> None:
    text = training_help("sweep")
    for name in ("search NAME=WHERE", "trials INT", "sampler tpe|random|grid", "prune true|false", "jobs INT"):
        assert f"\n  --{name} " in text
    assert "--launcher local|slurm" in text and "--partition VALUE" in text and "--dry_run  " in text


def test_the_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n  {verb} " not in out] == []
