import csv
import io
import json
import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from chromium import chromium, needs_chromium
from run_folders import write_run
from selenium.webdriver.common.by import By

from lightning_cnn.cli import main

A, B, C = "digits/20260101-100000-aaaa", "digits/20260102-100000-bbbb", "mnist/20260103-100000-cccc"


def config(lr: float, data: str = "Digits", **more: object) -> dict[str, Any]:
    """As Lightning's command line writes it."""
    return {
        "seed_everything": 1,
        "model": {"architecture": "lenet5", "lr": lr, "optimizer": "adamw"},
        "data": {"class_path": f"lightning_cnn.datamodules.{data}", "init_args": {"batch_size": 64}},
        "trainer": {"max_epochs": 3, "callbacks": None, "default_root_dir": f"somewhere/{lr}"},
        "runs_dir": f"runs-{lr}",
    } | more


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs: A is best by val/acc, C by test/acc, B has no test and the lowest loss."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_CNN_RUNS", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    stopping = {"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": {"patience": 7}}
    trainer = {"max_epochs": 3, "callbacks": [stopping], "default_root_dir": "here"}
    folder = tmp_path / "runs"
    write_run(
        folder,
        A,
        config(0.1),
        [(2.0, 0.3), (1.0, 0.6), (0.5, 0.95)],
        metrics={"val/acc": 0.95, "val/loss": 0.5, "test/acc": 0.91, "train/loss": 0.6},
        best={"metric": "val/acc", "value": 0.95, "epoch": 2, "checkpoint": "checkpoints/best.ckpt"},
    )
    write_run(
        folder,
        B,
        config(0.01, trainer=trainer),
        [(2.1, 0.2), (0.4, 0.9)],
        status="failed",
        start="2026-01-02T10:00:00+00:00",
        end="2026-01-02T12:03:00+00:00",
        metrics={"val/acc": 0.9, "val/loss": 0.4, "train/loss": float("nan")},
        best={"metric": "val/acc", "value": 0.9, "epoch": 1, "checkpoint": "checkpoints/best.ckpt"},
    )
    write_run(
        folder,
        C,
        config(0.001, "MNIST"),
        [(2.2, 0.1), (0.7, 0.8)],
        start="2026-01-03T10:00:00+00:00",
        end="2026-01-03T10:00:09+00:00",
        parameters=11181642,
        metrics={"val/acc": 0.8, "val/loss": 0.7, "test/acc": 0.92, "train/loss": 0.8},
        best={"metric": "val/acc", "value": 0.8, "epoch": 1, "checkpoint": "checkpoints/best.ckpt"},
        wandb={"id": "cccc", "mode": "online", "url": "https://wandb.example/cccc"},
    )
    return folder


def table(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, str]]:
    """What `compare` prints, as rows; the cells of aligned columns have two blanks between them."""
    assert main(["compare", *words]) == 0
    header, *lines = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines() if "  " in line]
    return [dict(zip(header, line, strict=True)) for line in lines]


def order(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["compare", "--json", *words]) == 0
    return [row["run"] for row in json.loads(capsys.readouterr().out)]


def test_results_side_by_side_with_the_settings_that_differ(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = table(capsys)
    assert first == {
        "run": A,
        "status": "finished",
        "epochs": "3",
        "duration": "1 min 05 s",
        "parameters": "61.7 k",
        "best val/acc": "0.9500",
        "best epoch": "2",
        "test/acc": "0.9100",
        "val/acc": "0.9500",
        "val/loss": "0.5000",
        "data": "Digits",
        "model.lr": "0.1",
        "EarlyStopping": "-",
        "EarlyStopping.patience": "-",
    }
    assert second["status"] == "failed"
    assert second["duration"] == "2 h 03 min"
    assert second["test/acc"] == "-"
    assert (second["EarlyStopping"], second["EarlyStopping.patience"]) == ("true", "7")
    assert third["parameters"] == "11.2 M"
    assert third["duration"] == "9 s"
    assert third["data"] == "MNIST"


def test_settings_that_are_the_same_among_the_shown_runs_are_left_out(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "data" not in table(capsys, "digits")[0]
    assert main(["compare", A]) == 0
    assert "model.lr" not in capsys.readouterr().out
    write_run(runs, "digits/20260104-100000-dddd", config(0.1, runs_dir="another"))
    assert main(["compare", A, "20260104-100000-dddd"]) == 0
    assert capsys.readouterr().out.endswith("no setting differs\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], [A, B, C]),
        (["20260102-100000-bbbb"], [B]),
        ([C, A], [C, A]),
        (["digits"], [A, B]),
        (["digits/*"], [A, B]),
        (["*/20260103*"], [C]),
        (["digits", A, "digits/*aaaa"], [A, B]),
        ([f"runs/{B}"], [B]),
        ([f"runs/{B}/"], [B]),
        (["runs/digits"], [A, B]),
        (["--runs_dir", "runs", "mnist"], [C]),
    ],
)
def test_the_runs_that_are_meant(
    runs: Path, words: list[str], found: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert order(capsys, *words) == found


def test_a_run_folder_elsewhere(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = runs.parent / "copied"
    (runs / A).rename(moved)
    assert order(capsys, str(moved), C) == [f"{runs.parent.name}/copied", C]  # a run is its folder


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("val/acc", [A, B, C]),
        ("val/loss", [B, A, C]),
        ("test/acc", [C, A, B]),  # B has none
        ("train/loss", [A, C, B]),  # not shown; B has NaN
        ("best", [A, B, C]),
        ("best val/acc", [A, B, C]),
        ("duration", [C, A, B]),
        ("epochs", [A, C, B]),  # C and B have as many
        ("parameters", [B, A, C]),
        ("start", [A, B, C]),
        ("model.lr", [C, B, A]),
        ("EarlyStopping.patience", [B, C, A]),
    ],
)
def test_sorting_puts_the_best_first_and_the_missing_last(
    runs: Path, name: str, found: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert order(capsys, C, B, A, "--sort", name) == found


def test_chosen_metrics(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = table(capsys, "--metrics", "train/*", "val/loss")[1]
    assert (row["train/loss"], row["val/loss"]) == ("nan", "0.4000")
    assert "test/acc" not in row
    assert "val/acc" not in row


def test_other_metrics_where_the_main_ones_were_not_logged(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(runs, "boxes/1", metrics={"test/map": 0.5})
    assert table(capsys, "boxes")[0]["test/map"] == "0.5000"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sort", "val/ac"], "did you mean val/acc"),
        (["--sort", "zzz"], "choose one of"),
        (["--metrics", "test/ac"], "did you mean test/acc"),
        (["--metrics", "zzz"], "test/acc, train/loss, val/acc, val/loss"),
        (["digit"], "did you mean digits?"),
        (["digits/20260101-100000-aaab"], f"did you mean {A}"),
        (["nothing*"], "lightning-cnn list runs"),
        (["--runs_dir", "elsewhere"], "lightning-cnn train"),
        (["--html", "no/such/folder/page.html"], "choose another file for --html"),
        (["--json", "--csv"], "not allowed with"),
    ],
)
def test_mistakes(runs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_json_is_strict_and_whole(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    assert main(["compare", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert rows[0]["metrics"] == {"val/acc": 0.95, "val/loss": 0.5, "test/acc": 0.91, "train/loss": 0.6}
    assert rows[0]["best"]["epoch"] == 2
    assert rows[0]["seconds"] == 65
    assert rows[0]["folder"] == f"runs/{A}"
    assert rows[1]["metrics"]["train/loss"] is None
    assert rows[1]["settings"] == {
        "model.lr": 0.01,
        "data": "Digits",
        "EarlyStopping": True,
        "EarlyStopping.patience": 7,
    }
    assert rows[2]["wandb"] == "https://wandb.example/cccc"


def test_csv(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--csv", "--sort", "val/loss"]) == 0
    first, *_ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    wanted = {
        "run": B,
        "seconds": "7380.0",
        "parameters": "61706",
        "test/acc": "",
        "val/loss": "0.4",
        "model.lr": "0.01",
    }
    assert {name: first[name] for name in wanted} == wanted


@pytest.mark.parametrize("columns", range(60, 130, 3))
def test_a_narrow_terminal_gets_several_tables(
    runs: Path, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["compare"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    words = [word for cells in map(str.split, out.splitlines()) for word in cells]
    for value in (A, B, C, "interrupted", "0.9100", "0.4000", "0.001", "MNIST", "EarlyStopping.patience", "7"):
        assert (value in words) == (value != "interrupted")
    assert out.count(A) == 1  # the other tables refer to it by number
    settings = out.partition("settings that differ\n")[2].splitlines()
    assert re.search(r"^2  .*\b0\.01\b", settings[2])
    monkeypatch.setenv("COLUMNS", "400")
    assert len(table(capsys)) == 3


def test_a_run_whose_process_is_gone_is_interrupted(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone: dict[str, Any] = {"status": "running", "end": None, "pid": 2**22 + 1, "host": socket.gethostname()}
    folder = write_run(runs, "digits/gone", **gone)
    for path in folder.iterdir():
        os.utime(path, (1767262530, 1767262530))  # 2026-01-01 10:15:30: it last wrote something
    alive: dict[str, Any] = {"status": "running", "end": None, "pid": os.getpid(), "host": socket.gethostname()}
    write_run(runs, "digits/alive", **alive)
    rows = {row["run"]: row for row in table(capsys, "digits/gone", "digits/alive")}
    assert rows["digits/gone"]["status"] == "interrupted"
    assert rows["digits/gone"]["duration"] == "15 min 30 s"
    assert rows["digits/alive"]["status"] == "running"


@pytest.mark.parametrize(
    "content", ["", '{"id": "x", "na', "[]", '{"id": "x"}', '{"id": "x", "name": "y", "start": null}']
)
def test_a_run_with_a_broken_record_is_a_row(runs: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / B / "run.json").write_text(content)
    assert main(["compare", "--json"]) == 0
    out, err = capsys.readouterr()
    rows = {row["run"]: row for row in json.loads(out)}
    assert {name: row["status"] for name, row in rows.items()} == {A: "finished", B: "damaged", C: "finished"}
    assert rows[B]["seconds"] is None and rows[B]["metrics"] == {} and f"{B}/run.json can't be read" in rows[B]["error"]
    assert err == f"{rows[B]['error']}\n"
    assert main(["compare", C]) == 0
    assert capsys.readouterr().err == ""  # it is not among the runs that were asked for
    assert main(["compare", B, "--html", "page.html"]) == 0
    assert B in capsys.readouterr().err and "damaged" in Path("page.html").read_text()


def test_a_missing_or_broken_configuration(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / A / "config.yaml").unlink()
    (runs / B / "config.yaml").write_text("model: {lr: [")
    write_run(runs, "mnist/dddd", config(0.5, "MNIST"))
    assert main(["compare", "--json"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert [row["settings"]["model.lr"] for row in rows if row["run"] in (A, B, C)] == [None, None, 0.001]
    assert "data" not in rows[0]["settings"]  # the same wherever it is known
    assert err.count("\n") == 1
    assert f"{B}/config.yaml" in err


def test_the_page_is_whole_and_escaped(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "<script>alert(1)</script>\"'&"
    write_run(runs, "x<b>y/1", config(0.1, evil), [(1.0, 0.5), (0.9, 0.6)], metrics={"val/acc": 0.6})
    assert main(["compare", "--html", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "<script>alert" not in page
    assert "x<b>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"https?://|@import|url\(|\bsrc=|<link", page), "it must not need the network"
    assert page.count("<polyline") == 8  # four runs, two charts
    assert "wrote page.html" in capsys.readouterr().err


def test_a_page_without_curves(runs: Path) -> None:
    (runs / A / "metrics.csv").write_text("epoch,step,val/loss\n0,9,nan\n,9,0.3\nx,9,0.2\n")
    (runs / B / "metrics.csv").unlink()
    assert main(["compare", "digits", "--html", "page.html"]) == 0
    assert "<svg" not in Path("page.html").read_text()


def test_the_page_links_run_folders_and_figures(runs: Path, tmp_path: Path) -> None:
    evil = write_run(runs, "a b#?%/javascript:alert(1)", config(0.1, "Digits"))
    (evil / "figures").mkdir()
    (evil / "figures" / "test worst.png").write_bytes(b"")
    for page in (Path("page.html"), tmp_path / "elsewhere" / "page.html"):
        page.parent.mkdir(exist_ok=True)
        assert main(["compare", "--html", str(page)]) == 0
        links = re.findall('href="([^"]*)"', page.read_text())
        assert len(links) == 5 and not any(link.startswith("javascript") for link in links)
        places = {(page.parent / unquote(link)).resolve() for link in links}
        assert {evil.resolve(), (evil / "figures" / "test worst.png").resolve()} <= places
        assert all(place.exists() for place in places)


def test_the_page_leaves_out_options_of_a_callback_in_which_its_runs_agree(runs: Path) -> None:
    for name, steps in (("found/1", 100), ("found/2", 50)):
        finder = {"class_path": "LearningRateFinder", "init_args": {"min_lr": 1e-8, "num_training": steps}}
        own = config(0.1, "Digits", trainer={"callbacks": [finder]})
        write_run(runs, name, own)

    def headers(*names: str) -> list[str]:
        assert main(["compare", *names, "--html", "page.html"]) == 0
        return re.findall("<button>([^<]*)</button>", Path("page.html").read_text())

    found = headers(A, "found")
    assert {"LearningRateFinder", "LearningRateFinder.num_training"} <= {*found}
    assert "LearningRateFinder.min_lr" not in found
    assert [name for name in headers(A, "found/1") if "Finder" in name] == ["LearningRateFinder"]


@needs_chromium
def test_the_page_in_a_browser(runs: Path, tmp_path: Path) -> None:
    assert main(["compare", "--html", "page.html"]) == 0
    with chromium(tmp_path) as browser:
        browser.get((runs.parent / "page.html").as_uri())

        def shown() -> list[str]:
            return [row.text.split()[0] for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr")]

        def click(header: str) -> None:
            browser.find_element(By.XPATH, f"//th/button[text()='{header}']").click()

        assert shown() == [A, B, C]
        click("test/acc")
        assert shown() == [C, A, B]
        click("test/acc")
        assert shown() == [A, C, B]  # the other way round, but what is missing stays last
        click("val/loss")
        assert shown() == [B, A, C]
        click("duration")
        assert shown() == [C, A, B]
        charts = browser.find_elements(By.CSS_SELECTOR, ".charts svg")
        assert [chart.accessible_name for chart in charts] == ["val/loss by epoch", "val/acc by epoch"]
        lines = charts[0].find_elements(By.CSS_SELECTOR, "polyline")
        assert [str(line.get_attribute("points")).count(",") for line in lines] == [3, 2, 2]
        assert all(line.is_displayed() and line.size["height"] > 50 for line in lines)
        browser.find_element(By.CSS_SELECTOR, ".swatch").click()  # of C, which is first now
        assert [line.is_displayed() for line in lines] == [True, True, False]
        assert browser.save_screenshot(str(tmp_path / "page.png"))
