"""Every notebook runs from its first cell to its last, in a short form on small data."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
import timm
import torch
from IPython.display import Image
from mask_sets import write_camvid
from nbclient import NotebookClient
from small_data import write_cifar10_folder
from svhn_files import write_numbers

pytestmark = [pytest.mark.first, pytest.mark.ci]
PROJECT = Path(__file__).parents[1]
DATA = {
    "camvid": {"root": "frames", "image_size": 64, "batch_size": 4},
    "capsules": {"class_path": "Digits", "image_size": 28, "batch_size": 32},
    "cifar10_comparison": {"class_path": "ImageFolder", "root": "images", "image_size": 32, "val_split": "random"},
    "house_numbers": {"train_images": 60, "test_images": 20, "batch_size": 16, "handwriting": 0.0},
    "mnist": {"class_path": "Digits", "image_size": 28, "batch_size": 32},
    "monthly_returns": {"stocks": 40, "months": 75, "lags": 12, "val_months": 6},
    "ships": {"train_images": 40, "test_images": 12, "image_size": 48},
}
NOTEBOOKS = sorted(PROJECT.glob("notebooks/*.ipynb"))
IN_A_KERNEL = "house_numbers"
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture
def short_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small data, and what tells the notebooks to make do with them."""
    write_cifar10_folder(tmp_path / "images", train=6, test=4)
    write_camvid(tmp_path / "frames")
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "weights.pth")
    monkeypatch.setenv("FOLDER", "images")
    monkeypatch.setenv("WEIGHTS", "weights.pth")
    monkeypatch.setenv("SAMPLE", str(write_numbers(tmp_path / "svhn") / "train"))
    monkeypatch.setenv("MODEL", '{"architecture_options": {"width": 8}}')
    monkeypatch.setenv("WALK", '{"train_months": 36, "first_test": "2019-01"}')
    monkeypatch.setenv("TRAINER", '{"max_epochs": 1, "limit_train_batches": 1}')


@pytest.mark.usefixtures("short_form")
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem != IN_A_KERNEL], ids=lambda path: path.stem)
def test_it_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has imported all that takes a kernel its time."""
    monkeypatch.setenv("DATA", json.dumps(DATA.get(path.stem, {})))
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            code = ast.parse("".join(cell["source"]))
            last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
            exec(compile(code, path.name, "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
    pictures = [each.data for each in shown if isinstance(each, Image)]
    assert pictures and all(content.startswith(b"\x89PNG") for content in pictures)


@pytest.mark.usefixtures("short_form")
def test_one_runs_in_a_kernel_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = PROJECT / "notebooks" / f"{IN_A_KERNEL}.ipynb"
    monkeypatch.setenv("DATA", json.dumps(DATA[path.stem]))
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(output.get("data", {}).get("image/png") for cell in notebook.cells for output in cell.get("outputs", []))


@each_notebook
def test_it_is_committed_with_its_outputs(path: Path) -> None:
    content = path.read_text()
    notebook = json.loads(content)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])
    assert len(content) < 2_000_000
    text = re.sub(r'"image/png": "[^"]*"', "", content)
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|Users)/", text), "an absolute path"
