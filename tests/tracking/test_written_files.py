"""What a run writes while it trains: rows that are appended, times that don't depend on the clock, plain JSON."""

import csv
import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_cnn.cli import main
from lightning_cnn.cli.train import _next, _result
from lightning_cnn.datamodules import Digits, SyntheticReturns
from lightning_cnn.errors import StorageError
from lightning_cnn.tracking import loggers, run
from lightning_cnn.tracking.history import read_history, read_rows
from lightning_cnn.tracking.loggers import MetricsCSV, RunTensorBoard
from lightning_cnn.tracking.run import RunFolder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


# metrics.csv


def test_rows_are_those_that_were_logged(tmp_path: Path) -> None:
    """Random metrics at random steps, saved at random times, with a resumption in the middle."""
    draw = random.Random(0)
    names = ["epoch", *(f"m{number}" for number in range(8))]
    path, step = tmp_path / "metrics.csv", 0
    logger = MetricsCSV(path)
    expected: list[dict[str, str]] = []
    for number in range(300):
        if number == 150:
            logger.save()
            kept = step - 5
            expected = [row for row in expected if int(row["step"]) < kept]
            logger, step = MetricsCSV(path, kept), kept
        step += draw.randrange(1, 3)
        row: dict[str, str] = {"step": str(step)}
        for name in draw.sample(names[: 2 + number // 30], draw.randrange(1, 3)):
            value = draw.randrange(9) if name == "epoch" else draw.random()
            logger.log_metrics({name: value}, step)
            row[name] = str(value)
            if draw.random() < 0.7:
                logger.save()
                assert rows(path)[-1] == row
        expected.append(row)
    logger.finalize("success")
    assert rows(path) == [*read_rows(path)] == expected
    header = path.read_text().splitlines()[0].split(",")
    assert header == ["epoch", "step", *sorted(names[1:])]


def test_a_save_writes_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 0.5}, 0)
    logger.save()
    place = (tmp_path / "metrics.csv").stat().st_ino
    monkeypatch.setattr(loggers, "replace_bytes", None)  # the file is not made anew
    for step in range(1, 50):
        logger.log_metrics({"a": step / 7}, step)
        logger.save()
    assert (tmp_path / "metrics.csv").stat().st_ino == place
    assert [float(row["a"]) for row in rows(tmp_path / "metrics.csv")] == [0.5, *(step / 7 for step in range(1, 50))]


@pytest.mark.parametrize("change", ["removed", "cut", "longer"])
def test_a_file_that_somebody_has_changed_is_made_whole(tmp_path: Path, change: str) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsCSV(path)
    for step in range(3):
        logger.log_metrics({"a": step}, step)
        logger.save()
    text = path.read_text()
    if change == "removed":
        path.unlink()
    else:
        path.write_text(text[:-4] if change == "cut" else text + "7,7")
    logger.log_metrics({"a": 3}, 3)
    logger.save()
    kept = [] if change == "removed" else ["0", "1"]
    assert [row["step"] for row in rows(path) if row["step"] not in "2"] == [*kept, "3"]
    (tmp_path / "metrics.csv").unlink()
    tmp_path.rmdir()
    with pytest.raises(StorageError, match="its folder is gone"):
        logger.save()


def test_a_torn_last_row_is_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/loss\r\n0,3,0.5\r\n1,7,0.412")  # of 0.4123456
    assert read_history(path, ["val/loss"]) == {"val/loss": [(0.0, 0.5)]}
    logger = MetricsCSV(path, 8)
    logger.log_metrics({"val/loss": 0.25}, 8)
    logger.save()
    assert [row["step"] for row in rows(path)] == ["3", "8"]


# times


class Clock:
    """Clocks of a machine: one that can be set, and one that only goes on."""

    def __init__(self) -> None:
        self.wall, self.steady = datetime(2026, 1, 1, 12, tzinfo=UTC), 0.0

    def now(self, _: object) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def go_on(self, hours: float, set_by: float = 0) -> None:
        self.wall += timedelta(hours=hours + set_by)
        self.steady += 3600 * hours


def test_a_clock_that_is_set_back_changes_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    class Time(datetime):
        now = clock.now  # type: ignore[assignment]

    monkeypatch.setattr(run, "datetime", Time)
    monkeypatch.setattr("lightning_cnn.tracking.run.time.monotonic", clock.monotonic)
    folder = RunFolder.create(tmp_path, "a", "", 0)
    clock.go_on(2, set_by=-3)  # within the first part
    folder.finish("interrupted")
    assert folder.record.seconds == 2 * 3600
    clock.go_on(1, set_by=-5)  # between the parts
    again = RunFolder.open(folder.folder)
    again.go_on("")
    clock.go_on(26, set_by=1)
    again.finish("finished")
    assert again.record.seconds == RunFolder.open(folder.folder).record.seconds == 28 * 3600
    again.record.parameters = 1
    assert "time         28:00:00 on " in _result(again, {"class_path": "lightning_cnn.datamodules.Digits"})


def test_a_run_that_seems_to_end_before_its_start_took_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs", "a/b", start="2026-01-01T10:00:00+00:00", end="2026-01-01T09:00:00+00:00")
    assert main(["compare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["seconds"] == 0


@pytest.mark.parametrize("clock", [0, -3600, 5], ids=["same second", "set back", "later"])
def test_tensorboard_reads_the_parts_of_a_run_in_their_order(
    clock: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = 1_780_000_000
    for part in range(3):
        monkeypatch.setattr("lightning_cnn.tracking.loggers.time.time", lambda part=part: begin + part * clock)
        logger = RunTensorBoard(tmp_path, None if part == 0 else 2 * part)
        for step in range(2 * part, 2 * part + 3):  # the last step of a part is repeated in the next
            logger.log_metrics({"a": part}, step)
        logger.finalize("success")
    found = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    found.Reload()
    steps = [(event.step, event.value) for event in found.Scalars("a")]
    assert steps == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]


# run.json


def test_a_record_is_plain_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    folder = RunFolder.create(tmp_path / "runs", "a", "", 0)
    folder.record.metrics = {"val/loss": math.nan, "val/acc": 0.5, "val/extra": -math.inf}
    folder.record.best = {"metric": "val/loss", "value": math.inf, "epoch": 0}
    folder.record.data = {"rows": "3"}
    folder.finish("failed")
    saved = json.loads((folder.folder / "run.json").read_text(), parse_constant=refuse)
    assert saved["metrics"] == {"val/loss": None, "val/acc": 0.5, "val/extra": None}
    again = RunFolder.open(folder.folder)
    assert math.isnan(again.record.metrics["val/loss"]) and math.isnan(again.record.best["value"])
    again.hold()  # what it holds is what it wrote
    again.release()
    for words in (["list", "runs"], ["list"], ["compare"]):
        assert main([*words, "--json"]) == 0
        assert "NaN" not in (out := capsys.readouterr().out) and json.loads(out, parse_constant=refuse)
    (folder.folder / "run.json").write_text(json.dumps(saved | {"metrics": {"val/loss": math.nan}}))  # as 0.2 wrote it
    assert math.isnan(RunFolder.open(folder.folder).record.metrics["val/loss"])


# what can be done next


@pytest.mark.parametrize(
    ("kept", "data", "end"),
    [
        (["best", "last"], Digits, "predict --ckpt_path 'my runs/a/b/checkpoints/best.ckpt' --images FILE_OR_FOLDER"),
        (["last"], Digits, "predict --ckpt_path 'my runs/a/b/checkpoints/last.ckpt' --images FILE_OR_FOLDER"),
        (["best"], SyntheticReturns, "predict --ckpt_path 'my runs/a/b/checkpoints/best.ckpt' --prices FILE"),
        ([], Digits, "lightning-cnn dashboard"),
        (["best"], object, "lightning-cnn dashboard"),
    ],
)
def test_the_next_command_works(kept: list[str], data: type, end: str) -> None:
    folder = write_run(Path("my runs"), "a/b")
    (folder / "checkpoints").mkdir()
    for name in kept:
        (folder / "checkpoints" / f"{name}.ckpt").touch()
    path = f"{data.__module__}.{data.__qualname__}"
    assert _next(RunFolder.open(folder), {"class_path": path}).endswith(end)
