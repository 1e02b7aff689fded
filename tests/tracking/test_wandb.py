"""W&B: online, continued, offline and sent later, and every way of having no server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from run_folders import only_run, record
from wandb_server import SentRun, WandbServer

from lightning_cnn.cli import main

KEY = "0123456789abcdef0123456789abcdef01234567"
QUICK = ["--data", "Digits", "--trainer.limit_train_batches", "4", "--trainer.accelerator", "cpu"]
TINY = ["fit", *QUICK, "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1"]


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without a login, whose terminal would answer a prompt; W&B knows nothing of the tests before."""
    for name, folder in (("HOME", "home"), ("NETRC", "home/netrc"), ("WANDB_CONFIG_DIR", "home/config")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "home/cache"))
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.delenv("WANDB_MODE")
    wandb.teardown()
    yield
    wandb.teardown()
    os.environ.pop("WANDB_ERROR_REPORTING", None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A W&B server, and a login to it."""
    with WandbServer() as running:
        log_in(monkeypatch, running.address)
        yield running
        wandb.teardown()


class Terminal:
    """A standard input that nobody may read from."""

    def isatty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"standard input was touched: {name}")


def log_in(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def parts(folder: Path) -> list[str]:
    """The folders that W&B made, one for each start, as `offline-run` or `run`."""
    return sorted(path.name.split("-2")[0] for path in (folder / "wandb").glob("*run-*"))


def check_history(sent: SentRun, epochs: int) -> None:
    """Rows of all epochs, one after the other, with the step of the trainer."""
    assert [row["_step"] for row in sent.history] == list(range(len(sent.history)))
    assert all("trainer/global_step" in row for row in sent.history)
    validated = [row for row in sent.history if "val/acc" in row]
    assert [row["trainer/global_step"] for row in validated] == [4 * epoch + 3 for epoch in range(epochs)]
    assert [row["epoch"] for row in validated] == list(range(epochs))
    assert [row["trainer/global_step"] for row in sent.history if "test/acc" in row][-1] == 4 * epochs
    losses = [row["val/loss"] for row in validated]
    summary = sent.summary
    assert summary["val/loss"] == {"min": min(losses), "last": losses[-1]}
    assert summary["val/acc"] == {"max": max(row["val/acc"] for row in validated), "last": validated[-1]["val/acc"]}
    assert summary["val/ece"] == {"min": min(row["val/ece"] for row in validated), "last": validated[-1]["val/ece"]}
    if epochs == 2:
        assert losses[0] < 2 < losses[1], "the last epoch was to be spoiled"


@pytest.mark.figures  # each another file
def test_an_online_run_and_its_resume(server: WandbServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *QUICK, "--trainer.max_epochs", "1", "--experiment", "mine", "--tags", "[small, quick]"]
    assert main([*words, "--project", "digits", "--model.lr", "0.002"]) == 0
    folder = only_run()
    (sent,) = server.runs.values()
    asked = sent.variables
    assert asked["name"] == asked["displayName"] == folder.name == record(folder)["id"]
    assert (asked["groupName"], asked["project"], asked["tags"]) == ("mine", "digits", ["small", "quick"])
    assert sent.settings == yaml.safe_load((folder / "config.yaml").read_text())
    assert sent.settings["model"]["init_args"]["lr"] == 0.002
    check_history(sent, epochs=1)
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert len(figures) == 8
    for name in figures:
        (media,) = [file for file in sent.files if file.startswith(f"media/images/figures/{name}_")]
        assert sent.files[media] == (folder / "figures" / f"{name}.png").read_bytes()
    url = f"{server.address}/tester/digits/runs/{folder.name}"
    assert record(folder)["wandb"] == {"id": folder.name, "mode": "online", "url": url}
    assert sent.finished == [0]
    assert parts(folder) == ["run"]
    assert "wandb sync" not in capsys.readouterr().out

    spoiled = ["--trainer.callbacks+=test_tracking.Spoil", "--trainer.callbacks.epoch", "1"]
    assert main(["train", "--resume", str(folder), "--trainer.max_epochs", "2", *spoiled]) == 0
    assert list(server.runs) == [folder.name]
    assert only_run() == folder
    assert sent.settings == yaml.safe_load((folder / "config.yaml").read_text())
    assert sent.settings["trainer"]["max_epochs"] == 2
    check_history(sent, epochs=2)
    assert record(folder)["wandb"] == {"id": folder.name, "mode": "online", "url": url}
    assert sent.finished == [0, 0]


def test_a_run_without_a_login_is_sent_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Offline in two parts; the second has a login, but must not go ahead of the first. `wandb sync` sends both."""
    assert main(["train", *QUICK, "--trainer.max_epochs", "1", "--experiment", "mine"]) == 0
    folder = only_run()
    assert record(folder)["wandb"] == {"id": folder.name, "mode": "offline", "url": None}
    printed = capsys.readouterr()
    assert "W&B" not in printed.out + printed.err and "wandb:" not in printed.err
    with WandbServer() as server:
        log_in(monkeypatch, server.address)
        wandb.teardown()
        spoiled = ["--trainer.callbacks+=test_tracking.Spoil", "--trainer.callbacks.epoch", "1"]
        assert main(["train", "--resume", str(folder), "--trainer.max_epochs", "2", *spoiled]) == 0
        assert f"`wandb sync {folder}/wandb/offline-run-*`" in capsys.readouterr().out
        assert server.runs == {}
        assert parts(folder) == ["offline-run", "offline-run"]
        wandb.teardown()
        found = sorted(map(str, (folder / "wandb").glob("offline-run-*")))
        call = [sys.executable, "-m", "wandb", "sync", *found]
        done = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert list(server.runs) == [folder.name]
    sent = server.runs[folder.name]
    assert (sent.variables["displayName"], sent.variables["groupName"]) == (folder.name, "mine")
    assert sent.settings == yaml.safe_load((folder / "config.yaml").read_text())
    check_history(sent, epochs=2)
    assert len([name for name in sent.files if name.startswith("media/images/figures/")]) >= 6


@pytest.mark.parametrize("kind", ["closed", "silent", "refusing"])
def test_a_login_without_a_server(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A closed port, one that accepts and never answers, and a server that does not know the key."""
    with socket.socket() as port, WandbServer() as refusing:
        port.bind(("127.0.0.1", 0))
        if kind == "silent":
            port.listen()
        refusing.refuses = True
        address = refusing.address if kind == "refusing" else f"http://127.0.0.1:{port.getsockname()[1]}"
        log_in(monkeypatch, address)
        start = time.monotonic()
        assert main(TINY) == 0
        wandb.teardown()
        assert time.monotonic() - start < 20
    folder = only_run()
    assert record(folder)["wandb"] == {"id": folder.name, "mode": "offline", "url": None}
    assert record(folder)["status"] == "finished"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "W&B" in line]
    assert f"`wandb sync {folder}/wandb/offline-run-*`" in line
    assert ("401" if kind == "refusing" else f"{address} does not answer") in line
    assert "offline-run" in parts(folder)


def test_a_mistyped_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    assert main(TINY) == 0
    assert record(only_run())["wandb"]["mode"] == "offline"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "W&B" in line]
    assert "WANDB_API_KEY" in line and "wandb sync" in line


@pytest.mark.parametrize("variable", [False, True])
def test_online_without_a_login(
    variable: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if variable:
        monkeypatch.setenv("WANDB_MODE", "online")
    assert main([*TINY, *([] if variable else ["--wandb", "online"])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --wandb online needs a login") and "wandb login" in line
    assert list(Path("runs").glob("*/*")) == []


@pytest.mark.parametrize(
    ("typed", "variable", "expected"),
    [
        ("disabled", None, "disabled"),
        ("auto", "disabled", "disabled"),
        ("auto", "offline", "offline"),
        ("offline", "disabled", "offline"),
        ("online", "offline", "online"),
    ],
)
def test_modes(
    typed: str, variable: str | None, expected: str, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a login and a server that would answer."""
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert main([*TINY, "--wandb", typed]) == 0
    folder = only_run()
    assert record(folder)["wandb"]["mode"] == expected
    assert (list(server.runs) == [folder.name]) == (expected == "online")
    assert (folder / "wandb").is_dir() == (expected != "disabled")
    assert parts(folder) == {"disabled": [], "offline": ["offline-run"], "online": ["run"]}[expected]
    assert not Path("wandb").exists()


def test_settings_that_w_and_b_refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "no address")
    assert main(TINY) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: W&B rejects its settings") and "base_url" in line
    assert list(Path("runs").glob("*/*")) == []
    assert main([*TINY, "--wandb", "disabled"]) == 0


@pytest.mark.ci
def test_several_processes_are_one_run(server: WandbServer) -> None:
    """In two processes, with a key that the server refuses: one run, one voice, and no word more to the server."""
    server.refuses = True
    words = ["train", *QUICK, "--trainer.max_epochs", "1", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    call = [sys.executable, "-m", "lightning_cnn", *words]
    done = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = only_run()
    assert parts(folder).count("offline-run") == 1
    assert done.stdout.count("run folder") == 1
    assert done.stdout.count("W&B is offline for this run") == 1
    assert record(folder)["device"].startswith("2 x cpu")
    assert record(folder)["wandb"] == {"id": folder.name, "mode": "offline", "url": None}
    assert set(server.posted) == {"/graphql"}, "reports on itself, for which it would wait at the end"
