"""Trainings to which the disk refuses a file: one line that names it, exit code 2, interrupted, and they go on."""

import contextlib
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from run_folders import learned, logged, pictures, record, same
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem
from trainings import Outcome, train

from lightning_cnn.errors import StorageError
from lightning_cnn.resume import files
from lightning_cnn.resume.checkpoint_file import AtomicCheckpointIO
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking import wandb_run
from lightning_cnn.tracking.run import RunFolder

pytestmark = pytest.mark.first
FIT = [
    *["train", "--data", "Digits", "--data.batch_size", "256", "--model.architecture", "ffnn"],
    *["--data.augment.shift", "0.1", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"],
    *["--trainer.log_every_n_steps", "2", "--trainer.enable_progress_bar", "false"],
    *["--trainer.enable_model_summary", "false", "--trainer.callbacks+=test_full_disk.FullDisk"],
]
FULL = Path("full.txt")  # names the files that the disk refuses, and from which time on
END = "end"  # the record that says `finished`


class FullDisk(Callback):
    """Lets the disk refuse the files that `full.txt` names, as long as it is there.

    Some words stand for real harm, done at the end of the first epoch: `fill` fills the disk, `remove` removes the
    run folder, `wandb` fills that of W&B, which is one of its own.
    """

    def __init__(self) -> None:
        self.pattern = ""
        if not FULL.is_file():
            return
        self.pattern, first = FULL.read_text().split()
        self.left = 0 if first == END else int(first)
        if self.pattern == "wandb":
            start = wandb_run.start_wandb

            def starts(run: RunFolder, *arguments: Any) -> Any:
                (run.folder / "wandb").mkdir()
                mount(run.folder / "wandb", "size=1m")
                return start(run, *arguments)

            wandb_run.start_wandb = starts  # type: ignore[assignment]
        begin, write = files._File.__init__, files._File.write

        def begins(file: Any, path: Path, flags: int) -> None:
            begin(file, path, flags)
            file.refused = fnmatch(str(path), f"*{self.pattern}{files.TEMPORARY}*")
            self.left -= file.refused

        def writes(file: Any, content: Any) -> int:
            is_time = self.left <= 0 and (first != END or b'"finished"' in bytes(content))
            if not file.refused or not is_time:
                return write(file, content)
            file.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise file.error

        files._File.__init__ = begins  # type: ignore[method-assign,assignment]
        files._File.write = writes  # type: ignore[method-assign,assignment]
        if self.pattern == "events.out.tfevents":
            LocalFileSystem.append = LocalFileSystem.write = self.refuse  # type: ignore[method-assign]

    def refuse(self, *arguments: Any) -> None:
        """What TensorBoard's file system does."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path("runs/broken")
        if trainer.current_epoch == 0 and self.pattern in ("fill", "wandb"):
            fill(Path("runs") if self.pattern == "fill" else folder / "wandb")
        elif trainer.current_epoch == 0 and self.pattern == "remove":
            shutil.rmtree(folder)


def mount(folder: Path, options: str) -> None:
    """Makes a disk of its own of a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leaves no byte on a disk."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def small_disk() -> Iterator[None]:
    """The folder of all runs on a disk of its own."""
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    Path("runs").mkdir()
    mount(Path("runs"), "size=32m")
    yield
    while subprocess.run(["umount", "-l", "runs"], capture_output=True).returncode == 0:
        pass


def go(*words: str, folder: str = "runs/broken", wandb: str = "disabled") -> Outcome:
    return train([*FIT, "--wandb", wandb, *words], environment={RUN_FOLDER: str(Path(folder).absolute())})


def one_error(outcome: Outcome) -> str:
    """The error of a training that has ended as the user can mend."""
    assert outcome.codes == [2], outcome.output
    assert "Traceback" not in outcome.output, outcome.output
    (line,) = [line for line in outcome.output.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing has stopped."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("whole")
    os.chdir(folder)
    outcome = go(folder="runs/whole")
    os.chdir(before)
    assert outcome.codes == [0], outcome.output
    return folder / "runs" / "whole"


def is_equal(folder: Path, whole: Path) -> None:
    assert record(folder)["status"] == "finished"
    for name in ("last.ckpt", "best.ckpt"):
        assert same(learned(folder, name), learned(whole, name)), name
    assert logged(folder) == logged(whole)
    assert record(folder)["metrics"].keys() == record(whole)["metrics"].keys()
    assert same(pictures(folder), pictures(whole))
    assert list(folder.rglob("*.tmp-*")) == []


@pytest.mark.parametrize(
    ("pattern", "first", "status"),
    [
        pytest.param("metrics.csv", 1, "interrupted", marks=pytest.mark.slow),
        ("metrics.csv", 3, "interrupted"),
        pytest.param("checkpoints/last.ckpt", 1, "interrupted", marks=pytest.mark.slow),
        ("checkpoints/last.ckpt", 2, "interrupted"),
        ("checkpoints/best.ckpt", 1, "interrupted"),
        pytest.param("figures/examples.png", 1, "interrupted", marks=[pytest.mark.slow, pytest.mark.figures]),
        pytest.param("figures/val_*.png", 2, "interrupted", marks=pytest.mark.figures),
        pytest.param("figures/test_*.png", 1, "interrupted", marks=[pytest.mark.slow, pytest.mark.figures]),
        ("events.out.tfevents", 1, "interrupted"),
        pytest.param("run.json", 2, "running", marks=pytest.mark.slow),
        ("run.json", END, "interrupted"),
    ],
)
def test_one_line_and_the_run_goes_on(pattern: str, first: int | str, status: str, whole: Path) -> None:
    FULL.write_text(f"{pattern} {first}")
    outcome = go()
    folder = Path("runs/broken").absolute()
    line = one_error(outcome)
    assert line.startswith(f"can't write {folder}/{pattern.split('*')[0]}") and "the disk is full: " in line, line
    assert record(folder)["status"] == status and RunFolder.open(folder).status == "interrupted"
    assert (folder / "config.yaml").is_file()
    assert list(folder.rglob("*.tmp-*")) == []
    FULL.unlink()
    outcome = train(["train", "--resume", str(folder)])
    assert outcome.codes == [0], outcome.output
    if pattern.startswith("figures"):  # those of the other run are blank
        assert go(folder="runs/whole").codes == [0]
        whole = Path("runs/whole")
    is_equal(folder, whole)


@pytest.mark.parametrize("pattern", [pytest.param("run.json", marks=pytest.mark.slow), "config.yaml"])
def test_a_run_that_could_not_begin_leaves_nothing(pattern: str, whole: Path) -> None:
    FULL.write_text(f"{pattern} 1")
    line = one_error(go())
    assert f"broken/{pattern} (the disk is full: " in line
    assert not Path("runs").exists()
    FULL.unlink()
    assert go().codes == [0]
    is_equal(Path("runs/broken"), whole)


def test_a_run_folder_that_cannot_be_made(small_disk: None) -> None:
    subprocess.run(["mount", "-o", "remount,ro", "runs"], check=True)
    assert "/broken (the file system is read-only): choose another place with --runs_dir" in one_error(go())
    subprocess.run(["mount", "-o", "remount,rw", "runs"], check=True)
    assert not list(Path("runs").iterdir())


def test_a_disk_that_is_full(small_disk: None, whole: Path) -> None:
    """Each file is refused, the record too; what was there before stays as it was."""
    FULL.write_text("fill 1")
    line, folder = one_error(go()), Path("runs/broken").absolute()
    assert re.search(r"\(the disk is full: .+ needed, 0 bytes free\): make room", line), line
    assert RunFolder.open(folder).status == "interrupted" and not list(folder.rglob("*.tmp-*"))
    FULL.unlink()
    Path("runs/filler").unlink()
    assert train(["train", "--resume", str(folder)]).codes == [0]
    is_equal(folder, whole)


def test_a_run_folder_that_is_removed() -> None:
    FULL.write_text("remove 1")
    assert "runs/broken" in (line := one_error(go())) and "its folder is gone" in line
    assert not Path("runs/broken").exists()


def test_checkpoints_elsewhere_get_their_folder(tmp_path: Path) -> None:
    """A `ModelCheckpoint` of the user may write anywhere; a run folder that is gone stays so."""
    (tmp_path / "run").mkdir()
    io = AtomicCheckpointIO(tmp_path / "run")
    for place in ("run/checkpoints", "else/where"):
        io.save_checkpoint({"a": 1}, tmp_path / place / "x.ckpt")
        assert torch.load(tmp_path / place / "x.ckpt", weights_only=True) == {"a": 1}
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(StorageError, match=r"can't write .*x.ckpt \(its folder is gone\)"):
        io.save_checkpoint({"a": 1}, tmp_path / "run/checkpoints/x.ckpt")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_no_room_for_wandb(small_disk: None, whole: Path) -> None:
    """W&B writes in a process of its own."""
    FULL.write_text("wandb 1")
    outcome = go(wandb="offline")
    print(outcome)
    assert "Traceback" not in outcome.output and not outcome.hung


WALK = [
    *["walkforward", "--data", "SyntheticReturns", "--data.stocks", "40", "--data.months", "75", "--data.lags", "12"],
    *["--data.momentum", "0.25", "--data.val_months", "6", "--trainer.max_epochs", "1", "--model.lr", "0.01"],
    *["--train_months", "36", "--wandb", "disabled", "--first_test", "2018-12"],
    *["--trainer.callbacks+=test_full_disk.FullDisk"],
]


@pytest.mark.slow
@pytest.mark.figures
def test_a_walk_forward_goes_on() -> None:
    """Two folds; predictions of each, those of both, and the report."""
    outcome = train([*WALK, "--runs_dir", "whole"])
    assert outcome.codes == [0], outcome.output
    ((whole,),) = [[*Path("whole").glob("*/*")]]
    words = [*WALK, "--runs_dir", "runs"]
    for pattern, first in (
        ("folds/train.yaml", 1),
        ("folds/*/last.ckpt", 1),
        ("folds/*predictions.parquet", 2),
        ("_cnn/*-??????-????/predictions.parquet", 1),
        ("figures/deciles.png", 1),
        ("report.html", 1),
    ):
        FULL.write_text(f"{pattern} {first}")
        line = one_error(train(words))
        assert "the disk is full" in line and pattern.split("/")[-1].lstrip("*") in line, line
        ((folder,),) = [[*Path("runs").glob("*/*")]]
        assert record(folder)["status"] == "interrupted"
        words = ["walkforward", "--resume", str(folder)]
    FULL.unlink()
    outcome = train(words)
    assert outcome.codes == [0], outcome.output
    for name in ("predictions.parquet", "baselines.parquet"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    found, wanted = (record(path)["metrics"] for path in (folder, whole))
    assert found == wanted
    assert same(pictures(folder), pictures(whole))
