"""`runs tag`, `runs note` and `runs remove`, and what `list runs` shows of them."""

import json
import os
import sys
from pathlib import Path

import pytest
from run_folders import write_run

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.errors import UserError
from lightning_cnn.resume.run_lock import RunLock
from lightning_cnn.tracking.removal import disk_used

NAMES = ("a/1", "a/2", "b/3")


@pytest.fixture(autouse=True)
def runs() -> Path:
    """Three runs, the first with tags of its training."""
    for name in NAMES:
        write_run(Path("runs"), name, tags=["old"] if name == "a/1" else [])
    return Path("runs")


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["list", "runs"]) == 0
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}


def test_tags_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "tag", "1", "new", "best one", "new"]) == 0
    assert capsys.readouterr().out == "a/1  old, new, best one  no note\n"
    assert main(["runs", "note", "a/1", "before", "the =change"]) == 0
    assert main(["runs", "tag", "a/1", "--drop", "old"]) == 0
    lines = listed(capsys)
    assert lines["a/1"].endswith("#new #best one before the =change") and "#" not in lines["a/2"]
    run = lc.load_run("a/1")
    assert (run.tags, run.note, lc.load_run("a/2").tags) == (["new", "best one"], "before the =change", [])
    assert main(["runs", "note", "a/1"]) == 0
    assert lc.load_run("1").tag("x", drop="new").tags == ["best one", "x"] and run.note == ""
    frame = lc.list_runs()
    assert frame.tags.to_dict() == {"a/1": ["best one", "x"], "a/2": [], "b/3": []}
    (run.folder / "labels.json").write_text("{")
    assert run.tags == ["old"]


def test_an_experiment_is_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever one run is named."""
    for words in (["runs", "note", "a", "text"], ["runs", "tag", "a", "x"], ["train", "--resume", "a"]):
        assert main(words) == 2
        error = "no run 'a' under runs; 'a' is an experiment: name one of its runs, such as a/1 or a/2"
        assert error in capsys.readouterr().err


def test_a_run_that_is_trained_can_be_tagged_and_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    lock = RunLock.take(Path("runs/a/1"))
    assert main(["runs", "tag", "a/1", "x"]) == 0
    assert main(["runs", "remove", "a", "b/3", "--yes"]) == 2
    assert "runs/a/1 is still being trained" in capsys.readouterr().err
    with pytest.raises(UserError, match="still being trained"):
        lc.load_run("1").remove()
    lock.release()
    assert all((Path("runs") / name / "run.json").is_file() for name in NAMES)


def test_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs/a/1")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").write_bytes(bytes(1_234_567))
    os.link(folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "same.ckpt")
    (folder / "other").symlink_to("../2")
    expected = 1_234_567 + sum((folder / name).stat().st_size for name in ("run.json", "metrics.csv"))
    assert disk_used(folder) == expected == lc.list_runs().bytes["a/1"]
    assert "  1.23 MB" in listed(capsys)["a/1"]


def test_removal_asks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (Path("runs/a/1") / "large").write_bytes(bytes(5000))
    sizes = {name: disk_used(Path("runs") / name) for name in NAMES}
    assert main(["runs", "remove", "a"]) == 2  # nobody can answer
    assert "add --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer in ("", "n", "nonsense"):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert main(["runs", "remove", "a"]) == 0
    assert {*listed(capsys)} == {*NAMES}
    asked: list[str] = []

    def agree(text: str) -> str:
        asked.append(text)
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    assert main(["runs", "remove", "a"]) == 0
    total = f"{(sizes['a/1'] + sizes['a/2']) / 1000:.3g} kB"
    assert asked == [f"remove 2 runs, {total}? [y/N] "]
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["a/1", "finished", f"{sizes['a/1'] / 1000:.3g}", "kB"]
    assert out.endswith(f"removed 2 runs, {total} freed\n")
    assert {*listed(capsys)} == {"b/3"} and not [*Path("runs/a").iterdir()]
    assert lc.load_run("3").remove() == sizes["b/3"] and not Path("runs/b/3").exists()


def test_what_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged run too; of a link the link alone; nothing for a name that fits nothing, or too much."""
    Path("runs/a/1/run.json").write_text("{")
    Path("away").mkdir()
    Path("runs/b/3").rename("away/3")
    Path("runs/b/3").symlink_to(Path("away/3").absolute())
    write_run(Path("runs"), "b/2")
    for name in ("2", "nothing", "b/1"):
        assert main(["runs", "remove", name, "a/1", "--yes"]) == 2
    assert main(["runs", "remove", "a/1", "b/3", "--yes"]) == 0
    assert {*listed(capsys)} == {"a/2", "b/2"} and Path("away/3/run.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tga", "1"], "did you mean tag?"),
        (["tag", "1"], "which tags?"),
        (["tag", "1", "x\ny"], "contains the control character"),
        (["tag", "1", "x" * 65], "expected 1 to 64 characters"),
        (["tag", "1", " "], "expected 1 to 64 characters"),
        (["tag", "1", "--drop", "x"], "the run has old"),
        (["tag", "nothing", "x"], "no run 'nothing'"),
        (["tag"], "required"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not [*Path("runs").glob("*/*/labels.json")]


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "runs", "--json"]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)["runs"]
    assert (first["name"], first["tags"], first["note"], first["bytes"]) == (
        "a/1",
        ["old"],
        "",
        disk_used(Path("runs/a/1")),
    )
