"""The built wheel: what is in it, and what it does in an empty environment with the core dependencies alone."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from small_data import write_image_folder

PROJECT = Path(__file__).parents[1]
# everything that the core dependencies promise, from Python and the command line in one process, and what they don't
SCRIPT = """
from pathlib import Path
import lightning_cnn as lc
from lightning_cnn.cli import main

(run,) = [lc.load_run(name) for name in lc.list_runs().index]
best = str(run.folder / "checkpoints" / "best.ckpt")
assert run.metrics["test/acc"] > 0.5 and len(run.history) and main(["test", "--ckpt_path", best]) == 0
assert len(lc.train(data={"class_path": "ImageFolder", "root": "images"}, trainer={"max_epochs": 1}).predict("images"))
assert len(lc.compare()) == 2 and main(["compare", "--html", "page.html"]) == 0
for what in ("architectures", "data", "experiments", "runs"):
    assert main(["list", what]) == 0
assert main(["features", "--pixels", "--data", "Digits", "--output", "pixels.npz"]) == 0
assert main(["probe", "pixels.npz"]) == 0
assert main(["export", "--ckpt_path", best, "--output", "model.pt2"]) == 0
assert main(["show", "--data", "Digits"]) == 0

before = {*Path().rglob("*")}
assert main(["export", "--ckpt_path", best]) == 2
assert main(["sweep", "--config", "digits_lenet5", "--search", "model.lr=log(1e-4,1e-1)"]) == 2
try:
    lc.train("synthetic_returns")
except lc.UserError as error:
    print(error)
assert {*Path().rglob("*")} == before
print(lc.__file__)
"""

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds and installs the wheel"),
]


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program where nothing leads back to this folder or this environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is here, so that nothing is written here."""
    copy, out = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "data", "runs", "tests")
    shutil.copytree(PROJECT, copy, symlinks=True, ignore=ignored)
    shutil.copytree(PROJECT / "tests" / "tools", copy / "tests" / "tools")  # to be seen left out
    run("uv", "build", "--quiet", "--wheel", "--out-dir", out, cwd=copy)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel and its dependencies, without any extra."""
    home = tmp_path_factory.mktemp("environment")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    run("uv", "venv", "--quiet", "--python", python, home / "venv", cwd=home)
    given: list[str | Path] = ["--python", home / "venv", "--constraint", PROJECT / "constraints.txt"]
    run("uv", "pip", "install", "--quiet", *given, wheel, cwd=home)
    return home / "venv" / "bin"


def test_what_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [*map(Path, archive.namelist())]
    assert {name.parts[0] for name in names} == {"lightning_cnn", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    own = {name.name for name in names if name.is_relative_to("lightning_cnn")}
    assert {"py.typed", *(template.name for template in PROJECT.glob("lightning_cnn/figures/templates/*"))} <= own
    shipped = {file for file in PROJECT.glob("experiments/**/*.yaml") if file.parent.name != "kubernetes"}
    shipped.add(PROJECT / "experiments" / "onnx_predict.py")
    there = {name.relative_to("lightning_cnn") for name in names if "experiments" in name.parts}
    assert len(shipped) > 40 and there == {file.relative_to(PROJECT) for file in shipped}
    sources = {file.relative_to(PROJECT) for file in PROJECT.glob("lightning_cnn/**/*.py")}
    assert {name for name in names if name.suffix == ".py" and "experiments" not in name.parts} == {
        name for name in sources if "experiments" not in name.parts
    }
    assert [name for name in names if name.name.startswith("test_")] == []


def test_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    listed = run(installed / "lightning-cnn", "list", "experiments", cwd=tmp_path).stdout
    assert "mnist_lenet5" in listed and "cifar10_resnet20" in listed
    version = run(installed / "lightning-cnn", "--version", cwd=tmp_path).stdout.split()[-1]
    assert version == tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]

    words = ["train", "--config", "digits_lenet5", "--trainer.max_epochs", "1", "--wandb", "offline"]
    out = run(installed / "lightning-cnn", *words, cwd=tmp_path).stdout
    assert "run folder   runs/digits_lenet5/" in out
    (folder,) = (tmp_path / "runs" / "digits_lenet5").iterdir()
    assert any((folder / "wandb").iterdir()) and [*folder.glob("events.out.tfevents.*")]

    write_image_folder(tmp_path / "images")
    done = run(installed / "python", "-c", SCRIPT, cwd=tmp_path)
    missing, file = done.stdout.splitlines()[-2:]
    assert missing == "SyntheticReturns needs pyarrow: pip install 'lightning-cnn[returns]'"
    assert Path(file).is_relative_to(installed.parent)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: model.onnx: ONNX needs onnx, onnxruntime, onnxscript: pip install 'lightning-cnn[export]'; "
        "or take --output model.pt2, which needs nothing more",
        "error: `lightning-cnn sweep` needs optuna: pip install 'lightning-cnn[sweep]'",
    ]
