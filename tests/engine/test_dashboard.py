import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from chromium import chromium, contains, needs_chromium
from run_folders import write_run
from selenium.webdriver.support.wait import WebDriverWait
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lightning_cnn.cli import main
from lightning_cnn.engine.dashboard import dashboard as serve

A, B = "digits/20260101-100000-aaaa", "mnist/20260102-100000-bbbb"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs with the event files that the TensorBoard logger leaves."""
    folder = tmp_path / "runs"
    for name, lr in ((A, 0.0375), (B, 0.25)):
        events = SummaryWriter(str(write_run(folder, name, start=f"2026-01-0{1 + (name == B)}T10:00:00+00:00")))
        for part in hparams({"model.lr": lr}, {"val/acc": 0}):  # type: ignore[no-untyped-call]
            events._get_file_writer().add_summary(part)  # type: ignore[no-untyped-call]
        for step in range(5):
            events.add_scalar("val/acc", 0.5 + lr * step / 10, step)
        events.close()
    return folder


@contextmanager
def dashboard(*words: str, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """The running verb and what it has printed up to its address."""
    call = [sys.executable, "-m", "lightning_cnn", "dashboard", *words]
    without_display = {name: text for name, text in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**without_display, "PYTHONUNBUFFERED": "1", **environment},
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        while not lines or " at http://" not in lines[-1]:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            lines.append(line.rstrip("\n"))
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def address(lines: list[str]) -> str:
    return lines[-1].partition(" at ")[2].split()[0]


@needs_chromium
@pytest.mark.timeout(180)
def test_the_runs_are_in_the_dashboard(runs: Path, tmp_path: Path) -> None:
    with (
        dashboard("--port", "0", "--no_browser", "--runs_dir", str(runs)) as (_, lines),
        chromium(tmp_path) as browser,
    ):
        assert lines[-1].startswith("2 runs at http://localhost:")
        wait = WebDriverWait(browser, 60)
        browser.get(address(lines) + "#timeseries")
        wait.until(contains(A, B, "val/acc", "0.515"))
        assert browser.title == "lightning_cnn"
        assert browser.save_screenshot(str(tmp_path / "timeseries.png"))
        browser.get(address(lines) + "#scalars")
        browser.refresh()
        wait.until(contains(A, B, "val/acc"))
        assert browser.save_screenshot(str(tmp_path / "scalars.png"))
        browser.get(address(lines) + "#hparams")
        browser.refresh()
        wait.until(contains(A, B, "model.lr", "0.0375", "0.2500", "val/acc", "0.5150", "0.6000"))
        assert browser.save_screenshot(str(tmp_path / "hparams.png"))


def test_ctrl_c_ends_it_cleanly(runs: Path) -> None:
    with dashboard("--port", "0", "--no_browser", "--runs_dir", str(runs)) as (process, lines):
        port = int(address(lines).rstrip("/").rpartition(":")[2])
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert (out.strip(), err) == ("", "")
        with socket.socket() as probe:
            assert probe.connect_ex(("localhost", port)) != 0


def test_a_browser_opens_where_there_is_a_display(runs: Path, tmp_path: Path) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}.part && mv {seen}.part {seen}\n')
    browser.chmod(0o755)
    for words, display, opens in (([], ":9", True), ([], "", False), (["--no_browser"], ":9", False)):
        seen.unlink(missing_ok=True)
        call = ["--port", "0", "--runs_dir", str(runs), *words]
        with dashboard(*call, BROWSER=str(browser), DISPLAY=display) as (process, lines):
            assert process.stdout is not None
            if not display:
                assert "ssh -NL" in process.stdout.readline()
            end = time.monotonic() + (20 if opens else 1)
            while not seen.exists() and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
            assert seen.exists() == opens
            assert not opens or seen.read_text().strip() == address(lines)


def test_a_taken_port(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["dashboard", "--port", str(port), "--runs_dir", str(runs), "--no_browser"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: port {port} is in use: use --port ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs_dir", "elsewhere"], "lightning-cnn train"),
        (["--port", "http"], "--port"),
        (["--port", "70000"], "--port"),
        (["--prot", "1"], "did you mean --port"),
        (["--host", "192.0.2.1"], "--host localhost"),
    ],
)
def test_mistakes(
    runs: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIGHTNING_CNN_RUNS", str(runs))
    assert main(["dashboard", "--no_browser", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_wandb_addresses_and_what_to_send_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my runs"

    def printed() -> list[str]:
        """What the verb prints until Ctrl-C."""
        with monkeypatch.context() as patch:
            ends = Mock(**{"Event.return_value.wait.side_effect": KeyboardInterrupt})
            patch.setattr("lightning_cnn.cli.dashboard.threading", ends)
            assert main(["dashboard", "--port", "0", "--no_browser", "--runs_dir", str(folder)]) == 0
        return capsys.readouterr().out.splitlines()

    write_run(folder, "digits/1", wandb={"id": "1", "mode": "online", "url": "https://wandb.example/me/digits/1"})
    sent = write_run(folder, "digits/2", wandb={"id": "2", "mode": "offline", "url": None})
    (sent / "wandb/offline-run-2-2").mkdir(parents=True)
    (sent / "wandb/offline-run-2-2/run-2.wandb.synced").touch()
    lines = printed()
    assert "  digits/1  https://wandb.example/me/digits/1" in lines
    assert not any("wandb sync" in line for line in lines)  # it was sent already
    offline = write_run(folder, "digits/3") / "wandb/offline-run-3-3"
    offline.mkdir(parents=True)
    (line,) = [line for line in printed() if "wandb sync" in line]
    assert line.endswith(f"wandb sync '{offline}'")
    for number in range(4, 6):
        (write_run(folder, f"digits/{number}") / f"wandb/offline-run-{number}").mkdir(parents=True)
    (line,) = [line for line in printed() if "wandb sync" in line]
    assert line.endswith(f"wandb sync '{folder}'/*/*/wandb/offline-run-*")


def test_two_in_one_process(runs: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "others", A)
    first, second = (serve(port=0, no_browser=True, runs_dir=folder) for folder in (runs, str(tmp_path / "others")))
    assert (first.runs, second.runs) == (2, 1) and first.address != second.address
    for served, folder in ((first, runs), (second, tmp_path / "others")):
        with urllib.request.urlopen(f"{served.address}data/environment") as answer:
            assert json.load(answer)["data_location"] == str(folder)
