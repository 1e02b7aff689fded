"""Without a package of an extra, what needs it ends in one line that names it; test_wheel.py tries all the rest."""

import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from PIL import Image, TiffImagePlugin
from small_data import write_mnist

import lightning_cnn as lc
from lightning_cnn import datamodules, modules
from lightning_cnn.cli import main
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import EXTRAS
from lightning_cnn.modules import Segmenter

PROJECT = Path(__file__).parents[1]
RETURNS = PROJECT / "tests" / "fixtures" / "v01" / "returns" / "20261128-132323-19ef"
PRICES = ["fit", "--data", "MonthlyReturns", "--data.prices", "some.csv"]
SEARCH = "model.lr=log(1e-4,1e-1)"
# what scikit-learn brings is always there
OPTIONAL = sorted({package for packages in EXTRAS.values() for package in packages} - {"scipy"})

# extra, a package of it, the words of a command, and the same in Python
COMMANDS: list[tuple[str, str, list[str], Callable[[], Any]]] = [
    ("returns", "pyarrow", ["train", "--data", "SyntheticReturns"], lambda: lc.train(data="SyntheticReturns")),
    (
        "returns",
        "pyarrow",
        ["fit", "--data", "MonthlyReturns", "--data.prices", "some.csv"],
        lambda: lc.fit(data={"class_path": "MonthlyReturns", "prices": "some.csv"}),
    ),
    (
        "returns",
        "pyarrow",
        ["walkforward", "--data", "SyntheticReturns"],
        lambda: lc.walk_forward(data="SyntheticReturns"),
    ),
    ("returns", "pyarrow", ["report", "some.parquet"], lambda: lc.report("some.parquet")),
    (
        "returns",
        "pyarrow",
        ["predict", "--ckpt_path", f"{RETURNS}/checkpoints/best.ckpt", "--prices", "some.csv"],
        lambda: lc.predict(RETURNS / "checkpoints" / "best.ckpt", prices="some.csv"),
    ),
    (
        "excel",
        "python_calamine",
        ["fit", "--data", "MonthlyReturns", "--data.prices", "some.xlsx"],
        lambda: lc.fit(data={"class_path": "MonthlyReturns", "prices": "some.xlsx"}),
    ),
    ("detection", "pycocotools", ["train", "--data", "SyntheticBoxes"], lambda: lc.train(data="SyntheticBoxes")),
    ("svhn", "h5py", ["train", "--data", "SVHNNumbers"], lambda: lc.train(data="SVHNNumbers")),
    ("svhn", "h5py", ["train", "--data", "SVHNBoxes"], lambda: lc.train(data="SVHNBoxes")),
    ("svhn", "pyarrow", ["show", "--data", "SVHN"], lambda: lc.show(data="SVHN")),
    (
        "svhn",
        "pyarrow",
        ["train", "--data", "SyntheticNumbers", "--data.annotations", "some.zip"],
        lambda: lc.train(data={"class_path": "SyntheticNumbers", "annotations": "some.zip"}),
    ),
    ("sweep", "optuna", ["sweep", "--data", "Digits", "--search", SEARCH], lambda: lc.sweep(data="Digits")),
    ("slurm", "submitit", ["submit", "--data", "Digits"], lambda: lc.submit(data="Digits")),
    ("slurm", "submitit", ["submit", "--data", "Digits", "--dry_run"], lambda: lc.submit(data="Digits")),
    (
        "slurm",
        "submitit",
        ["sweep", "--data", "Digits", "--search", SEARCH, "--launcher", "slurm"],
        lambda: lc.sweep(data="Digits", search=[SEARCH], slurm=lc.Slurm()),
    ),
    *[
        ("export", package, ["export", "--ckpt_path", "some.ckpt"], lambda: lc.export("some.ckpt"))
        for package in EXTRAS["export"]
    ],
    ("explain", "captum", ["explain", "--ckpt_path", "some.ckpt"], lambda: lc.explain("some.ckpt")),
    (
        "segmentation",
        "segmentation_models_pytorch",
        ["train", "--data", "Digits", "--model.architecture", "smp_unet"],
        lambda: lc.train(data="Digits", model={"architecture": "smp_unet"}),
    ),
    ("features", "pyarrow", ["features", "--pixels", "--data", "MNIST"], lambda: lc.features(None, data="MNIST")),
    ("features", "pyarrow", ["probe", "features.parquet"], lambda: lc.probe("features.parquet")),
]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hides a package: it can be neither found nor imported."""
    return lambda package: monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("extra", "package", "words", "call"),
    COMMANDS,
    ids=[f"{package}-{' '.join(words[:3:2])}" for _, package, words, _ in COMMANDS],
)
def test_one_line_names_the_extra(
    extra: str,
    package: str,
    words: list[str],
    call: Callable[[], Any],
    hide: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hide(package)
    told = f" needs {package}: pip install 'lightning-cnn[{extra}]'"
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and told in line
    with pytest.raises(lc.UserError) as raised:
        call()
    assert told in str(raised.value)
    assert [*Path().iterdir()] == []


CLASSES: list[Any] = [getattr(room, name) for room in (datamodules, modules) for name in room.__all__]


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        (kind, package)
        for kind in CLASSES
        for package in EXTRAS.get(getattr(kind, "extra_needed", ""), ())
        if package in OPTIONAL
    ],
)
def test_classes_name_the_extra(kind: Any, package: str, hide: Callable[[str], None]) -> None:
    hide(package)
    install = rf"pip install 'lightning-cnn\[{kind.extra_needed}\]'"
    required = [name for name, it in inspect.signature(kind).parameters.items() if it.default is it.empty]
    with pytest.raises(lc.UserError, match=rf"^{kind.__name__} needs {package}: {install}$"):
        kind(**dict.fromkeys(required, "some"))


def test_predictions_of_a_run_name_the_extra(hide: Callable[[str], None]) -> None:
    run = lc.load_run(copytree(RETURNS, Path("runs") / "returns" / RETURNS.name))
    (run.folder / "predictions.parquet").touch()
    hide("pyarrow")
    with pytest.raises(lc.UserError, match=r"predictions.parquet needs pyarrow: .*\[returns\]"):
        _ = run.predictions


def test_a_geotiff_names_the_extra(hide: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a georeference a TIFF needs no extra: test_predict_masks.py."""
    module = Segmenter(num_classes=2, in_channels=1, image_size=32, architecture_options={"width": 2, "depth": 1})
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": module.state_dict(),
        "hyper_parameters": {"_class_path": "lightning_cnn.modules.Segmenter", **module.hparams},
        "Data": {"preprocessing": Preprocessing(32, 1, resize="keep").to_dict()},
    }
    torch.save(content, "some.ckpt")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550] = (3.0, 3.0, 0.0)  # the size of its pixels in meters
    Image.new("L", (40, 40)).save("scene.tif", tiffinfo=tags)
    hide("rasterio")
    before = sorted(Path().iterdir())
    assert main(["predict", "--ckpt_path", "some.ckpt", "--images", "scene.tif"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: the GeoTIFF scene.tif needs rasterio: pip install 'lightning-cnn[geotiff]'"
    assert sorted(Path().iterdir()) == before


def test_each_optional_package_is_hidden_in_a_test() -> None:
    assert sorted({"rasterio", *(package for _, package, _, _ in COMMANDS)}) == OPTIONAL


def test_what_pyproject_lists() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = {
        extra: tuple(requirement.split(">=")[0] for requirement in requirements)
        for extra, requirements in project["optional-dependencies"].items()
    }
    del extras["docs"]
    (everything,) = extras.pop("all")
    assert extras == EXTRAS
    assert sorted(everything.removeprefix("lightning-cnn[").removesuffix("]").split(",")) == sorted(EXTRAS)
    assert project["version"] == lc.__version__


# W&B imports pandas itself with the first row that it logs, and pandas pyarrow
IMPORTED = """
import sys
from lightning_cnn.cli import main
assert main(sys.argv[1:]) == 0
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.mark.ci
def test_a_training_on_mnist_imports_no_optional_package() -> None:
    write_mnist(Path("data"), train=200, test=50)
    words = ["train", "--config", "mnist_lenet5", "--trainer.max_epochs", "1", "--wandb", "disabled"]
    done = subprocess.run([sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = done.stderr.splitlines()[-1].split()
    assert {"torch", "tensorboard", "matplotlib"} < {*imported}
    assert {*OPTIONAL, "pandas", "sklearn"} & {*imported} == set()


def test_windows_is_refused_in_one_line() -> None:
    code = "import sys; sys.platform = 'win32'; import lightning_cnn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: lightning-cnn needs Linux or another POSIX system")


def test_the_import_loads_the_standard_library_alone() -> None:
    code = "import sys; before = {*sys.modules}; import lightning_cnn; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert imported - sys.stdlib_module_names == {"lightning_cnn"}
