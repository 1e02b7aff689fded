"""The lists and the comparison as data frames."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from run_folders import write_run

from lightning_cnn.engine.listing import compare, list_architectures, list_data, list_experiments, list_runs
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.run import RunFolder

ACC = {"digits/1": 0.9, "digits/2": 0.8, "digits/3": 0.95, "mnist/4": 0.5}


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two seeds of a rate, one of another rate, and a run of another experiment without the seed in its settings."""
    monkeypatch.chdir(tmp_path)
    for (name, acc), lr, seed in zip(ACC.items(), (0.1, 0.1, 0.2, 0.1), (0, 1, 0, 0), strict=True):
        settings = {"seed_everything": seed, "model": {"lr": lr}}
        best = {"metric": "val/acc", "value": acc, "epoch": 1}
        metrics = {"val/acc": acc, **({"test/acc": acc / 2} if name == "digits/1" else {})}
        write_run(tmp_path / "runs", name, settings, [(1.0, 0.5), (0.9, 0.6)], metrics=metrics, best=best, last=metrics)
    return tmp_path / "runs"


def test_lists() -> None:
    Path("experiments").mkdir()
    Path("experiments/mine.yaml").write_text("# what it is\ndata: Digits\n")
    Path("experiments/service.yaml").write_text("# no experiment\nkind: Service\n")
    assert list_data().loc["MNIST", "description"]
    assert set(list_architectures("resnet18")["from"]) >= {"timm"} and "resnet18" not in list_architectures().index
    found = list_experiments()
    assert found.folder["mnist_lenet5"] == "images" and found.description["mnist_lenet5"].startswith("LeNet5")
    assert found.index[-1] == "experiments/mine.yaml" and found.description.iloc[-1] == "what it is"
    assert "returns_book" in list_experiments("returns").index
    assert "mnist_lenet5" not in list_experiments("returns/*").index
    found = list_runs()
    assert found.index.tolist() == [*ACC] and found.best.tolist() == [*ACC.values()]
    assert set(found.metric) == {"val/acc"} and found.start.dt.tz is not None
    assert list_runs("runs", "mnist*").index.tolist() == ["mnist/4"]
    with pytest.raises(UserError, match="did you mean MNIST"):
        list_data("MMNIST")


def test_each_run_is_a_row() -> None:
    found = compare(sort="val/acc")
    assert found.index.tolist() == ["digits/3", "digits/1", "digits/2", "mnist/4"] and found.index.name == "run"
    assert found.columns.tolist()[:6] == ["start", "status", "epochs", "seconds", "parameters", "best val/acc"]
    assert found["model.lr"].tolist() == [0.2, 0.1, 0.1, 0.1]
    assert pd.isna(found.loc["digits/2", "test/acc"]) and found["test/acc"].dtype == float
    assert "last val/acc" not in found and "last val/acc" in compare(last=True)
    assert compare(metrics="test/*").filter(like="/acc").columns.tolist() == ["best val/acc", "test/acc"]


def test_the_runs_that_are_meant(runs: Path) -> None:
    run = RunFolder.open(runs / "digits" / "3")
    for named in (run, [run], runs / "digits" / "3", "digits/3", ["3"]):
        assert compare(named).index.tolist() == ["digits/3"]
    (runs / "digits" / "2" / "run.json").write_text("{")
    runs.rename("others")
    assert compare(["others/mnist", "others"]).index.tolist() == ["mnist/4", "digits/2", "digits/1", "digits/3"]
    assert compare(runs_dir="others").status.to_dict() == {
        **dict.fromkeys(("digits/1", "digits/3", "mnist/4"), "finished"),
        "digits/2": "damaged",
    }


def test_seeds_become_a_row() -> None:
    found = compare(group_by="seed", sort="val/acc")
    assert found.index.tolist() == ["digits", "digits", "mnist"]
    assert found.columns.tolist()[:4] == ["model.lr", "best val/acc", "best val/acc std", "best val/acc n"]
    assert found["val/acc"].tolist() == pytest.approx([0.95, 0.85, 0.5])
    assert found["val/acc n"].tolist() == [1, 2, 1]
    assert found["val/acc std"].iloc[1] == pytest.approx(0.1 / 2**0.5) and pd.isna(found["val/acc std"].iloc[0])
    assert found["test/acc n"].tolist() == [0, 1, 0]
    by_rate = compare("digits", group_by="model.lr")
    assert by_rate["seed_everything"].tolist() == [0, 1] and by_rate["val/acc n"].tolist() == [2, 1]
    for wrong in ({"group_by": "lr"}, {"group_by": "seed", "sort": "val/ac"}):
        with pytest.raises(UserError, match=r"val/acc|model\.lr"):
            compare(**wrong)  # type: ignore[arg-type]


def test_the_page_is_written_beside_the_frame(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(compare(html="page.html")) == 4
    assert "digits/1" in Path("page.html").read_text()
    assert capfd.readouterr() == ("", "")


def test_lists_and_comparisons_load_no_torch() -> None:
    code = "from lightning_cnn.engine.listing import *; import sys; compare(html='p.html'); list_runs(); list_data()"
    check = "print(sorted({'torch', 'pytorch_lightning', 'timm', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_runs_of_the_same_second_are_in_their_order() -> None:
    """Those of version 0.2 have no fractions of seconds."""
    for name, fraction in (("c", ""), ("b", ".250"), ("a", ".750")):
        write_run(Path("runs"), f"quick/{name}", {"model": {"lr": 1}}, start=f"2026-01-03T10:00:00{fraction}+00:00")
    for frame in (each.filter(like="quick", axis=0) for each in (list_runs(), compare("quick"))):
        assert [*frame.index] == ["quick/c", "quick/b", "quick/a"]
        assert [*frame.start.dt.microsecond] == [0, 250_000, 750_000]
