"""Which runs are the user's: the remembered folders of runs; and what a report and the jobs of Slurm may use."""

import importlib
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_folders import write_run

from lightning_cnn.cli import main
from lightning_cnn.cluster.requeue import JOB_HOME, CommandJob
from lightning_cnn.config.trust import is_own, remember
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.resume.signals import SIGNALS
from lightning_cnn.tracking.runs_dirs import remember_runs_dir, remembered_runs_dirs
from lightning_cnn.user_code import user_code

MINE = """
from timm.models import register_model
from torch import nn
from lightning_cnn.datamodules import Digits, SyntheticReturns
from lightning_cnn.modules import ImageClassifier
class Net(ImageClassifier):
    pass
class Data(Digits):
    pass
class Returns(SyntheticReturns):
    pass
@register_model
def tiny_of_mine(pretrained=False, num_classes=10, in_chans=1, **options):
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * in_chans, num_classes))
"""
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--wandb", "disabled"]
OURS = ["--data", "Digits", "--model.architecture", "linear", *SHORT]
THEIRS = ["--data", "mine.Data", "--model", "mine.Net", "--model.architecture", "linear", *SHORT]


@pytest.fixture
def state() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "lightning_cnn" / "runs_dirs"


@pytest.fixture
def forget(timm_registry: None) -> Callable[[], None]:
    """Lets the user's module be imported anew, as in another process."""

    def forgotten() -> None:
        sys.modules.pop("mine", None)

    Path("mine.py").write_text(MINE)
    importlib.invalidate_caches()
    return forgotten


def moved(folder: Path) -> Path:
    """Makes a run or a sweep one from elsewhere."""
    target = Path("downloads", *folder.parts[1:])
    target.parent.mkdir(parents=True)
    return folder.rename(target)


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


def test_a_typed_folder_is_remembered(state: Path, tmp_path: Path) -> None:
    Path("real").mkdir()
    Path("link").symlink_to("real")
    Path("mine.yaml").write_text("runs_dir: written\n")
    assert main(["fit", *OURS, "--runs_dir", "runs"]) == 0
    assert not state.exists()  # the usual folder is known
    for words in (["--runs_dir=link"], ["--config", "mine.yaml"]):
        assert main(["fit", *OURS, *words]) == 0
    assert state.read_text().split() == [str(tmp_path / name) for name in ("real", "written")]
    assert state.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in state.parent.iterdir()] == ["runs_dirs"]


@pytest.mark.slow
def test_a_sweep_and_a_walk_forward_remember_their_folder_alone(state: Path, tmp_path: Path) -> None:
    search = ["--search", "model.lr=log(1e-4,1e-1)", "--trials", "1"]
    assert main(["sweep", *OURS, *search, "--runs_dir", "swept"]) == 0
    words = ["--data", "SyntheticReturns", "--data.stocks", "20", "--data.months", "70", "--data.lags", "12"]
    words += ["--data.val_months", "6", "--train_months", "36", "--first_test", "2019-06", *SHORT]
    assert main(["walkforward", *words, "--runs_dir", "walked"]) == 0
    assert state.read_text().split() == [str(tmp_path / name) for name in ("swept", "walked")]


def test_a_download_beside_ones_own_runs_is_not_ones_own(state: Path, tmp_path: Path) -> None:
    """A folder of runs may be one in which other things lie, too; that of the work itself is none."""
    assert main(["fit", *OURS, "--runs_dir", "kept"]) == 0
    (run,) = Path("kept").glob("*/*")
    assert is_own(run) and is_own(run / "checkpoints" / "best.ckpt")
    for name in ("net.ckpt", "downloads/net.ckpt", "downloads/exp/1/checkpoints/best.ckpt"):
        Path("kept", name).parent.mkdir(parents=True, exist_ok=True)
        Path("kept", name).touch()
        assert not is_own(Path("kept", name))
    assert main(["fit", *OURS, "--runs_dir", "."]) == 0
    assert state.read_text() == f"{tmp_path}/kept\n"


@pytest.mark.timeout(60)
def test_a_fifo_in_place_of_a_configuration_is_not_waited_for(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *OURS]) == 0
    folder = moved(only("runs/*/*"))
    (folder / "config.yaml").unlink()
    os.mkfifo(folder / "config.yaml")
    capsys.readouterr()
    for words in (["fit", "--resume", str(folder)], ["test", "--config", str(folder / "config.yaml")]):
        assert main(words) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and "config.yaml can't be read" in line, line


def test_what_a_run_from_elsewhere_says_is_not_remembered(state: Path, tmp_path: Path) -> None:
    assert main(["fit", *OURS]) == 0
    folder = moved(only("runs/*/*"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"runs_dir": str(tmp_path)}))
    assert main(["fit", "--config", str(folder / "config.yaml")]) == 0
    assert main(["fit", "--resume", str(folder), "--trainer.max_epochs", "2"]) == 0
    assert not state.exists() and only("digits_linear/*").is_dir() and not is_own(folder)


def test_no_folder_that_holds_the_home_is_remembered(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for folder in ("/", str(home), str(home.parent), f"{tmp_path}/a\n{tmp_path}/b"):
        user_code().runs_dirs.add(folder)
        remember(Path(folder))
    assert not state.exists()
    remember(home / "runs")  # nobody has typed it
    assert not state.exists()
    user_code().runs_dirs.add("home/me/runs")
    remember(Path("home/me/runs"))
    assert state.read_text() == f"{home}/runs\n"
    user_code().runs_dirs.clear()
    write_run(home / "runs", "exp/1")
    assert is_own(home / "runs" / "exp" / "1") and not is_own(home / "downloads")


@pytest.mark.parametrize("change", ["group", "others", "folder", "owner", "link", "relative", "fifo"])
def test_a_file_that_others_can_write_does_not_count(
    change: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_runs_dir(tmp_path / "other")
    assert remembered_runs_dirs() == [str(tmp_path / "other")]
    if change in ("group", "others"):
        state.chmod(0o620 if change == "group" else 0o602)
    elif change == "folder":
        state.parent.chmod(0o777)
    elif change == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    elif change == "link":
        state.rename("elsewhere")
        state.symlink_to(Path("elsewhere").absolute())
    elif change == "relative":
        state.write_text("other\n\n.\n")
    else:
        state.unlink()
        os.mkfifo(state)
    assert remembered_runs_dirs() == []


@pytest.mark.slow
def test_where_nothing_can_be_remembered_the_run_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(Path("file").absolute()))
    assert main(["fit", *OURS, "--runs_dir", "other"]) == 0
    assert only("other/*/*/checkpoints/best.ckpt").is_file()


def test_a_relative_state_folder_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    remember_runs_dir(tmp_path / "other")
    assert (tmp_path / "me/.local/state/lightning_cnn/runs_dirs").read_text() == f"{tmp_path}/other\n"


def test_a_report_of_a_run_from_elsewhere_needs_trust(
    forget: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "mine.Returns", "--model", "ReturnClassifier", "--model.architecture", "returns_cnn"]
    words += ["--data.stocks", "20", "--data.months", "75", "--data.lags", "12"]
    assert main(["fit", *words, "--data.val_months", "6", *SHORT, "--runs_dir", "other"]) == 0
    run = only("other/*/*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"runs_dir": "/"}))
    folder = moved(run)
    forget()
    capsys.readouterr()
    assert main(["report", str(folder)]) == 2
    assert capsys.readouterr().err.endswith("add --trust mine\n") and "mine" not in sys.modules
    assert main(["report", str(folder), "--trust", "mine"]) == 0
    assert (folder / "report.html").is_file()
    (folder / "predictions.parquet").unlink()
    folder.rename(run)  # remembered
    forget()
    assert main(["report", str(run)]) == 0 and "mine" in sys.modules


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "mine.tiny_of_mine"},
        {"class_path": "ImageClassifier", "init_args": {"architecture": "mine.tiny_of_mine"}},
        {"init_args": {"architecture": "mine.tiny_of_mine"}},
    ],
)
def test_the_user_names_a_network_in_any_form(model: dict[str, Any], forget: Callable[[], None]) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({"data": "Digits", "model": model}))
    Path("later.yaml").write_text(yaml.safe_dump({"model": {"lr": 0.01}}))
    files = ["--config", "mine.yaml", "--config", "later.yaml"]
    assert main(["fit", *files, *SHORT]) == 0
    best = moved(only("runs/*/*")) / "checkpoints" / "best.ckpt"
    forget()
    assert main(["test", "--ckpt_path", str(best)]) == 2 and "mine" not in sys.modules
    assert main(["test", *files, "--ckpt_path", str(best)]) == 0 and "mine" in sys.modules


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is submitted, as the job on another machine unpickles it."""
    found: list[Any] = []

    def submit(
        options: Any, folder: Path, name: str, work: list[Any], files: dict[str, str] | None = None
    ) -> list[str]:
        folder.mkdir(parents=True)
        for file, text in (files or {}).items():
            (folder / file).write_text(text)
        found[:] = pickle.loads(pickle.dumps(work))
        return [str(number) for number in range(len(work))]

    def become(program: str, words: list[str], environment: dict[str, str]) -> None:
        with monkeypatch.context() as patch:
            for name in (RUN_FOLDER, JOB_HOME):
                patch.setenv(name, environment.get(name, ""))
            if code := main(words[words.index("lightning_cnn") + 1 :]):
                raise SystemExit(code)

    for module, name in (("submit", "queue"), ("sweep", "submit")):
        monkeypatch.setattr(f"lightning_cnn.engine.{module}.{name}", submit)
        monkeypatch.setattr(f"lightning_cnn.engine.{module}.check_slurm", lambda: None)
    monkeypatch.setattr(os, "execve", become)
    yield found
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def test_a_job_may_use_what_submit_may(jobs: list[Any], forget: Callable[[], None], state: Path) -> None:
    assert main(["fit", *THEIRS]) == 0
    best = moved(only("runs/*/*")) / "checkpoints" / "best.ckpt"
    words = ["submit", "--ckpt_path", str(best), *SHORT, "--trainer.max_epochs", "2"]
    forget()
    assert main(words) == 2
    assert main([*words, "--trust", "mine", "--runs_dir", "other"]) == 0
    assert state.read_text() == f"{Path('other').absolute()}\n"
    state.unlink()
    forget()
    jobs[0]()
    assert only("other/*/*/run.json").is_file()


@pytest.mark.slow
def test_a_job_does_not_trust_the_folder_that_a_run_from_elsewhere_names(jobs: list[Any]) -> None:
    assert main(["fit", *OURS]) == 0
    folder = moved(only("runs/*/*"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"runs_dir": "/"}))
    assert main(["submit", "--resume", str(folder), "--trainer.max_epochs", "2"]) == 0
    assert yaml.safe_load(Path(jobs[0].words[2]).read_text())["runs_dir"] is None
    jobs[0]()
    assert len((folder / "metrics.csv").read_text().splitlines()) > 2


def test_a_sweep_from_elsewhere_is_not_the_users_in_its_jobs(jobs: list[Any], forget: Callable[[], None]) -> None:
    search = ["--search", "model.lr=log(1e-4,1e-1)", "--trials", "1", "--launcher", "slurm"]
    assert main(["sweep", *THEIRS, *search, "--runs_dir", "other"]) == 0
    assert jobs[0].words[3:5] == ("--runs_dir", str(Path("other").absolute()))
    home = moved(only("other/*"))
    forget()
    again = ["sweep", "--resume", str(home), "--launcher", "slurm"]
    assert main(again) == 2
    assert main([*again, "--trust", "mine"]) == 0
    (job,) = jobs
    assert "--runs_dir" not in job.words
    forget()
    with pytest.raises(SystemExit) as ended:
        CommandJob(job.words[:3], job.environment)()
    assert ended.value.code == 2 and "mine" not in sys.modules
    job()
    assert (home / "best.yaml").is_file()
