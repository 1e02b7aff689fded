"""Thousands of runs: what is remembered of them is what their folders hold, whatever happens to the cache."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

from lightning_cnn.engine.listing import compare, entries
from lightning_cnn.tracking import cache

COUNT = 6


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six runs, which are many here; one has failed and one is being trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "MANY", COUNT)
    for number, status in enumerate(("finished", "failed", "pruned", "interrupted", "running", "finished")):
        settings = {"seed_everything": number, "model": {"lr": 0.1 * (number % 2), "width": "8"}}
        metrics = {"val/acc": number / 10}
        write_run(tmp_path / "runs", f"digits/{number}", settings, [(1.0, 0.5)], metrics=metrics, status=status)
    return tmp_path / "runs"


def found(runs_dir: Path) -> list[Any]:
    """What `list` and `compare` say."""
    return [entries("runs", None, runs_dir), json.loads(compare(runs_dir=runs_dir).to_json())]


def uncached(runs_dir: Path) -> list[Any]:
    """The same by reading each file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "MANY", 10**9)
        return found(runs_dir)


def file() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"], "lightning_cnn", "runs.sqlite")


def test_the_second_time_nothing_is_read_but_what_may_change(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = found(runs)
    assert first == uncached(runs) and file().stat().st_mode & 0o777 == 0o600
    read: list[str] = []

    def entry(folder: Path) -> tuple[dict[str, str], bool]:
        read.append(folder.name)
        return {"name": f"digits/{folder.name}", "start": ""}, True

    monkeypatch.setattr("lightning_cnn.engine.listing._run_entry", entry)
    monkeypatch.setattr(
        "lightning_cnn.tracking.comparison.settings_of", lambda folder: pytest.fail(f"{folder} was read")
    )
    entries("runs", None, runs)
    compare(runs_dir=runs)
    assert read == ["4"], "only the run that is being trained"


def change_record(runs: Path) -> None:
    path = runs / "digits" / "0" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"status": "failed"}))


def change_config(runs: Path) -> None:
    path = runs / "digits" / "1" / "config.yaml"
    times = path.stat()
    (path.parent / "new").write_text(path.read_text().replace("0.1", "0.7"))  # of the same size and time
    os.utime(path.parent / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(path.parent / "new", path)


def add_labels(runs: Path) -> None:
    (runs / "digits" / "2" / "labels.json").write_text('{"tags": ["good"], "note": "look"}')


def add_checkpoint(runs: Path) -> None:
    (runs / "digits" / "3" / "checkpoints").mkdir()
    (runs / "digits" / "3" / "checkpoints" / "best.ckpt").write_bytes(b"12345")


def remove_run(runs: Path) -> None:
    shutil.rmtree(runs / "digits" / "5")
    write_run(runs, "digits/6", {"model": {"lr": 3.0}})


def damage_record(runs: Path) -> None:
    (runs / "digits" / "0" / "run.json").write_text("{")


@pytest.mark.parametrize(
    "change", [change_record, change_config, add_labels, add_checkpoint, remove_run, damage_record]
)
def test_changes_are_noticed(change: Callable[[Path], None], runs: Path) -> None:
    before = found(runs)
    change(runs)
    after = found(runs)
    assert after == uncached(runs) and after != before


def test_the_same_folder_by_another_name(runs: Path) -> None:
    assert found(Path("runs"))[0] != found(runs)[0] == uncached(runs)[0]  # their paths are as the folder is named


def test_a_moved_folder_of_runs(runs: Path) -> None:
    found(runs)
    runs.rename("moved")
    assert found(Path("moved")) == uncached(Path("moved"))


def overwritten(path: Path) -> None:
    path.write_bytes(b"no database" * 100)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def of_another_form(path: Path) -> None:
    import sqlite3

    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE found (kind TEXT)")
    path.chmod(0o600)


def writable_by_others(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("damage", [overwritten, cut, of_another_form, writable_by_others])
def test_a_damaged_cache_is_begun_anew(damage: Callable[[Path], None], runs: Path) -> None:
    first = found(runs)
    damage(file())
    assert found(runs) == first
    assert cache._load(f"list {cache.FORMAT}").keys() == {f"{runs}/digits/{number}" for number in (0, 1, 2, 3, 5)}


def test_values_of_others_are_not_believed(runs: Path) -> None:
    first = found(runs)
    file().write_bytes(file().read_bytes().replace(b"finished", b"FINISHED"))
    assert found(runs) != first  # ours
    file().parent.chmod(0o777)
    assert found(runs) == first


def test_a_link_is_not_followed(runs: Path) -> None:
    first = found(runs)
    file().rename("mine.sqlite")
    content = Path("mine.sqlite").read_bytes()
    file().symlink_to(Path("mine.sqlite").resolve())
    assert found(runs) == first and not file().is_symlink()
    assert Path("mine.sqlite").read_bytes() == content


def test_no_place_for_a_cache(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("file").resolve()))
    assert found(runs) == uncached(runs)


def test_it_stays_small(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(runs)
    monkeypatch.setattr(cache, "MOST", COUNT)
    runs.rename("moved")
    assert found(Path("moved")) == uncached(Path("moved"))
    assert all("/moved/" in folder for folder in cache._load(f"list {cache.FORMAT}"))
