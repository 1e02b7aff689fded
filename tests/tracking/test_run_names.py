"""Which run is meant: a run is its folder, and a name that fits several runs, or none, is refused."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from run_folders import record, write_run

from lightning_cnn.cli import main
from lightning_cnn.engine.listing import compare, list_runs
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import find_run, select_runs

NAMES = ("expA/first", "expB/first", "expB/second")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of one id, and a third; all their records say the same."""
    for name in NAMES:
        folder = write_run(tmp_path / "runs", name, {"model": {"lr": 0.1}}, [(1.0, 0.5)], metrics={"val/acc": 0.5})
        (folder / "run.json").write_text(json.dumps(record(folder) | {"id": "x", "name": "y"}))
    return tmp_path / "runs"


def one(name: str) -> list[RunFolder]:
    return [find_run(Path("runs"), name)]


def several(name: str) -> list[RunFolder]:
    return select_runs([name], Path("runs"))


@pytest.mark.parametrize("find", [one, several])
@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((name, name) for name in NAMES),
        ("second", "expB/second"),
        ("runs/expA/first", "expA/first"),
        ("first", "could mean expA/first, expB/first: name one of them"),
        ("typo/first", "no run 'typo/first' under runs/?; did you mean expA/first or expB/first"),
        ("expA/second", "no run 'expA/second' under runs/?; did you mean expB/second"),
        ("firts", "did you mean first"),
        ("expA/frist", "did you mean expA/first"),
        ("x", "shows what there is"),
        ("y/x", "no run"),
    ],
)
def test_the_run_that_is_meant(runs: Path, find: Callable[[str], list[RunFolder]], name: str, found: str) -> None:
    if found in NAMES:
        assert [run.label for run in find(name)] == [found]
        return
    with pytest.raises(UserError, match=found):
        find(name)


def test_a_name_in_the_working_directory_is_another_meaning(runs: Path) -> None:
    shutil.copytree(runs / "expB" / "second", "second")
    with pytest.raises(UserError, match=r"could mean \./second, expB/second"):
        find_run(runs, "second")
    assert find_run(runs, "./second").folder == Path("second")
    shutil.rmtree("second")
    Path("second").symlink_to(runs / "expB" / "second")  # the same one
    assert find_run(runs, "second").folder.resolve() == runs / "expB" / "second"


def test_an_experiment_of_the_same_name_is_another_meaning(runs: Path) -> None:
    write_run(runs, "second/third")
    with pytest.raises(UserError, match=r"could mean expB/second, second/\*"):
        select_runs(["second"], runs)
    assert [run.label for run in select_runs(["second/*"], runs)] == ["second/third"]


def test_copies_and_renamed_folders_are_runs_of_their_own(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "expA" / "first", runs / "expA" / "copy")
    (runs / "expB" / "second").rename(runs / "expB" / "renamed")
    labels = {"expA/copy", "expA/first", "expB/first", "expB/renamed"}
    assert {*list_runs("runs").index} == {*compare(runs_dir="runs").index} == labels
    assert {*compare(runs_dir="runs", group_by="seed").index} == {"expA", "expB"}
    for label in labels:
        assert find_run(runs, label).label == label
    assert main(["compare", "renamed", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["experiment"], row["id"]) == ("expB/renamed", "expB", "renamed")


DEEP = 100_000 * "["
BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)).replace("*a0", "1")
ENTRIES: dict[str, tuple[Any, ...]] = {  # of run.json, none of its type
    "pid": (1.5, 10**30, "1", True),
    "id": (None, 1),
    "name": ([],),
    "status": ([], "gone", None),
    "epochs": (None, 1.5, "3"),
    "paused": ("1", 10**400),
    "metrics": ([], {"val/loss": "low"}, {"val/loss": [1]}),
    "last": (None,),
    "best": ({"value": "x"}, {"epoch": "one"}, {"metric": 1}, []),
    "better": ({"val/loss": "up"},),
    "wandb": ("online",),
    "versions": ({"torch": 2},),
    "start": (5,),
    "seed": ("a",),
    "tags": ("x", [1]),
}
RECORDS: dict[str, str | bytes] = {"deep": DEEP, "no text": b"\xff{", "null": "null"}
CONFIGS: dict[str, str | bytes] = {
    "list": "- 1\n- 2\n",
    "text": "hello",
    "bomb": BOMB,
    "circle": "a: &a [*a]\n",
    "deep": DEEP,
    "deep blocks": 100_000 * "- " + "1\n",
    "date": "a: 2001-13-45\n",
    "int": "a: !!int abc\n",
    "digits": f"a: {'9' * 5000}\n",
    "code": "a: !!python/object/apply:os.system [id]\n",
    "key": "? [1, 2]\n: 3\n",
    "bytes": b"\xff\xfe\x00",
}
ROWS: dict[str, str | bytes] = {
    "torn": "epoch,step,val/loss\n0,1,1.0\n0,2,0.4",
    "zeros": b"epoch,step,val/loss\n0,1,1.0\n\0\0\0\0,\n",
    "long field": "epoch,step,val/loss\n0,1,1.0\n" + 200_000 * "9" + ",1,1\n",
    "more cells": "epoch,step,val/loss\n0,1,1.0,5,6\n",
    "no text": b"\xff\xfe\n",
}
DAMAGE: dict[str, tuple[str, str | bytes | dict[str, Any]]] = {
    **{f"{name} {value!r:.12}": ("run.json", {name: value}) for name, found in ENTRIES.items() for value in found},
    **{
        f"record {name}": ("run.json", text) for name, text in (("deep", DEEP), ("no text", b"\xff{"), ("null", "null"))
    },
    **{f"config {name}": ("config.yaml", text) for name, text in CONFIGS.items()},
    **{f"rows {name}": ("metrics.csv", text) for name, text in ROWS.items()},
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_one_damaged_run_hides_no_other(runs: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, content = DAMAGE[kind]
    path = runs / "expA" / "first" / name
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    expected = ["damaged" if name == "run.json" else "finished", "finished", "finished"]
    assert main(["list", "runs", "--json"]) == 0
    listed = {entry["name"]: entry["status"] for entry in json.loads(capsys.readouterr().out)["runs"]}
    assert [listed[each] for each in NAMES] == expected
    for words in (["--json"], ["--csv"], ["--html", "page.html"]):
        assert main(["compare", *words]) == 0
        found = capsys.readouterr()
        assert ("first/config.yaml can't be read" in found.err) == (name == "config.yaml"), found.err
        if words == ["--json"]:
            assert {row["run"]: row["status"] for row in json.loads(found.out)} == listed
    if name == "run.json":
        assert main(["compare", "expA/first"]) == 0
        assert f"{path.parent.relative_to(runs)}/run.json can't be read" in capsys.readouterr().err
        with pytest.raises(UserError, match=r"run\.json can't be read"):
            find_run(runs, "expA/first")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_runs_that_may_not_be_read_are_named(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another user, in a process of its own."""
    monkeypatch.delenv("COLUMNS", raising=False)
    (runs / "expA" / "first").chmod(0)
    (runs / "expB").chmod(0)
    for folder in (*runs.parents, runs):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    out = runs.parent / "out"
    out.touch()
    out.chmod(0o666)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            with out.open("w") as file, redirect_stdout(file), redirect_stderr(file):
                main(["list", "runs"])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    (runs / "expB").chmod(0o755)
    text = out.read_text()
    assert re.search("^expA/first +damaged +.* can't be read .permission denied", text, re.MULTILINE), text
    assert "runs/expB can't be read" in text
