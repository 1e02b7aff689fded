"""The run folder `runs/<experiment>/<run id>/` and its record `run.json`. Imports neither torch nor Lightning."""

import fcntl
import json
import os
import platform
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

import psutil

from lightning_cnn.errors import UserError, did_you_mean

Status = Literal["running", "finished", "pruned", "failed", "interrupted"]
RECORD = "run.json"
CONFIG = "config.yaml"
METRICS = "metrics.csv"
# variable with the folder of the run, made where it is missing and gone on with where it is there: for jobs that are
# started again
RUN_FOLDER = "LIGHTNING_CNN_RUN"
TEMPORARY = ".tmp-"  # within the name of a file that is being written
SIGN_SECONDS = 30  # between two signs of life of a run, which are the time of its record
GONE_SECONDS = 300  # without a sign of life after which a process on another machine counts as gone
PACKAGES = ("lightning-cnn", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "wandb")


def default_runs_dir() -> Path:
    """`$LIGHTNING_CNN_RUNS`, or `runs/` in the working directory."""
    return Path(os.environ.get("LIGHTNING_CNN_RUNS") or "runs")


@dataclass
class RunRecord:
    """What `run.json` holds.

    Attributes:
        id: Name of the run folder, also the id and name of the W&B run.
        name: Name of the experiment, the group of the W&B run.
        status: running, finished, pruned (a trial of a sweep that was not worth going on), failed or interrupted.
        start: Start in UTC, ISO 8601.
        end: End in UTC, ISO 8601; None while it runs.
        paused: Seconds between the interruptions of the run and its resumptions.
        command: The command line, as typed.
        git_commit: Commit of the working directory, with `+changes` where files differ from it.
        versions: Python and package versions.
        device: What it trains on, such as `cpu` or `2 x NVIDIA H200`.
        seed: The seed of every random draw.
        parameters: Number of parameters of the model.
        epochs: Finished training epochs.
        metrics: Last value of each logged metric.
        best: Best checkpoint: `metric`, `value`, `epoch`, `checkpoint` (path inside the run folder).
        found: Settings that a finder has found, such as `model.lr`.
        wandb: `id`, `mode` and `url` of the W&B run.
        error: Why the run failed or was pruned, one line.
        pid: Process that runs it, on `host`.
        host: Machine that runs it.
        job: Number of the Slurm job that runs it, empty outside of Slurm.
    """

    id: str
    name: str
    status: Status = "running"
    start: str = ""
    end: str | None = None
    paused: float = 0.0
    command: str = ""
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    seed: int | None = None
    parameters: int | None = None
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    wandb: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    pid: int | None = None
    host: str = ""
    job: str = ""

    @property
    def seconds(self) -> float:
        """Wall-clock seconds from start to end, or until now while it runs, without the pauses."""
        end = datetime.fromisoformat(self.end) if self.end else datetime.now(UTC)
        return (end - datetime.fromisoformat(self.start)).total_seconds() - self.paused


class Run:
    """A run folder and its record.

    Args:
        folder: The run folder.
        record: The record that belongs to it.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self.record = record

    @classmethod
    def create(cls, runs_dir: Path, name: str, command: str, seed: int | None, folder: Path | None = None) -> Self:
        """Makes a new run folder with the status `running`.

        Args:
            runs_dir: The folder of all runs.
            name: Name of the experiment.
            command: The command line, as typed.
            seed: The seed of the run.
            folder: The run folder; default `<runs_dir>/<name>/<date>-<time>-<four letters>`.

        Raises:
            UserError: If the folder can't be written, or holds other things.
        """
        now = datetime.now(UTC)
        given = folder is not None
        folder = folder or new_folder(runs_dir, name)
        try:
            folder.mkdir(parents=True, exist_ok=given)
        except OSError as error:
            raise UserError(
                f"can't make the run folder {folder} ({error.strerror}): choose another place with --runs_dir"
            ) from None
        for half in folder.glob(f"{RECORD}{TEMPORARY}*"):  # a job may have been killed when it had just made the folder
            half.unlink(missing_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"${RUN_FOLDER} names {folder}, which holds other things than a run: name a new folder")
        record = RunRecord(id=folder.name, name=name, seed=seed)
        if not re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", folder.name):  # others may have given theirs the same name
            record.wandb = {"id": f"{folder.name}-{secrets.token_hex(4)}"}
        run = cls(folder, record)
        run._begin(command)
        record.start = now.isoformat(timespec="seconds")
        run.save()
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads a run folder.

        Raises:
            UserError: If there is no readable `run.json` in it.
        """
        path = folder / RECORD
        try:
            content = json.loads(path.read_text())
            known = {f.name for f in fields(RunRecord)}
            record = RunRecord(**{k: v for k, v in content.items() if k in known})
            if not isinstance(record.start, str) or not all(
                isinstance(part, dict) for part in (record.metrics, record.best, record.found, record.wandb)
            ):
                raise TypeError("start must be a text; metrics, best, found and wandb must be objects")
            return cls(folder, record)
        except FileNotFoundError:
            raise UserError(f"{folder} is no run folder: it has no {RECORD} (`lightning-cnn list runs`)") from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} can't be read ({error}): move the folder away or restore the file") from None

    def check_free(self) -> None:
        """Refuses to go on with a run that another process trains.

        A Slurm job that is started again, on whatever machine, has no other process.

        Raises:
            UserError: If one does.
        """
        record = self.record
        here = record.host == socket.gethostname()
        again = not here and bool(record.job) and record.job == os.environ.get("SLURM_JOB_ID")
        if self.status == "running" and not again:
            raise UserError(
                f"{self.folder} is still being trained, by process {record.pid} on {record.host}; a process on "
                "another machine counts as gone five minutes after its last sign of life"
            )

    def resume(self, command: str) -> None:
        """Marks the run as running again, in this process.

        Raises:
            UserError: If another process has been faster.
        """
        with _locked(self.folder / RECORD):
            self.record = Run.open(self.folder).record
            self.check_free()
            self._resume(command)

    def _resume(self, command: str) -> None:
        saved = (self.folder / RECORD).stat().st_mtime  # a killed run has no end: its last sign of life is this
        stopped = datetime.fromisoformat(self.record.end).timestamp() if self.record.end else saved
        self.record.paused += max(0.0, datetime.now(UTC).timestamp() - stopped)
        self.record.end = None
        self.record.error = None
        # a test of the weights before is none of those to come
        self.record.metrics = {name: v for name, v in self.record.metrics.items() if not name.startswith("test/")}
        self._begin(command)
        self.save()

    def finish(self, status: Status, error: str | None = None) -> None:
        """Writes the end of the run."""
        self.record.status = status
        self.record.error = " ".join(error.split()) if error else None
        self.record.end = datetime.now(UTC).isoformat(timespec="seconds")
        self.save()

    def save(self) -> None:
        """Writes `run.json`."""
        replace_text(self.folder / RECORD, json.dumps(asdict(self.record), indent=2) + "\n")

    @property
    def status(self) -> Status:
        """The status in the record, but `interrupted` where it says `running` and the process is gone.

        Of a process on another machine only its signs of life are seen.
        """
        record = self.record
        if record.status != "running" or record.pid is None:
            return record.status
        try:
            saved = (self.folder / RECORD).stat().st_mtime
            if record.host != socket.gethostname():
                return "interrupted" if time.time() - saved > GONE_SECONDS else "running"
            process = psutil.Process(record.pid)
            # a process younger than the record (2 s for clocks that differ) is another one with the same number
            gone = process.status() == psutil.STATUS_ZOMBIE or process.create_time() > saved + 2
        except psutil.AccessDenied:
            gone = False
        except (psutil.NoSuchProcess, OSError):
            gone = True
        return "interrupted" if gone else "running"

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Gives signs of life from time to time."""
        over = threading.Event()

        def give_signs() -> None:
            while not over.wait(SIGN_SECONDS):
                with suppress(OSError):
                    os.utime(self.folder / RECORD)

        threading.Thread(target=give_signs, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def write_config(self, text: str) -> None:
        """Writes `config.yaml` in one step.

        Args:
            text: The whole configuration as YAML.
        """
        replace_text(self.folder / CONFIG, text)

    def _begin(self, command: str) -> None:
        record = self.record
        record.status = "running"
        record.command = command
        record.git_commit = _git_commit()
        record.versions = _versions()
        record.pid = os.getpid()
        record.host = socket.gethostname()
        record.job = os.environ.get("SLURM_JOB_ID", "")


def new_folder(runs_dir: Path, name: str) -> Path:
    """The path of a new run folder, `<runs_dir>/<name>/<date>-<time>-<four letters>`; it is not made.

    Args:
        runs_dir: The folder of all runs.
        name: Name of the experiment.
    """
    return runs_dir / name / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def sweep(folder: Path) -> None:
    """Removes the halves that a killed process left behind in a run folder."""
    for leftover in (*folder.glob(f"*{TEMPORARY}*"), *folder.glob(f"checkpoints/*{TEMPORARY}*")):
        leftover.unlink(missing_ok=True)


def iter_runs(runs_dir: Path, broken: list[Path] | None = None) -> Iterator[Run]:
    """All runs under a folder, oldest first; folders without a readable record are left out.

    Args:
        runs_dir: The folder of all runs.
        broken: Is given the folders whose record can't be read.
    """
    runs = []
    for path in sorted(runs_dir.glob(f"*/*/{RECORD}")):
        try:
            runs.append(Run.open(path.parent))
        except UserError:
            if broken is not None:
                broken.append(path.parent)
    yield from sorted(runs, key=lambda run: (run.record.start, run.record.id))


def find_run(runs_dir: Path, name: str) -> Run:
    """The run that a user means by a path, a run id, or `<experiment>/<run id>`.

    Raises:
        UserError: If there is no such run.
    """
    for folder in (Path(name), runs_dir / name, *runs_dir.glob(f"*/{Path(name).name}")):
        if (folder / RECORD).is_file():
            return Run.open(folder)
    known = [run.record.id for run in iter_runs(runs_dir)]
    hint = did_you_mean(Path(name).name, known) or "; `lightning-cnn list runs` shows what there is"
    raise UserError(f"no run {name!r} under {runs_dir}{hint}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one process at a time in here, where the file system knows locks; the file may be replaced within."""
    with path.open("r+") as file:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def replace_text(path: Path, text: str) -> None:
    """Writes a file in one step: a reader sees the old text or the new one, never half of it."""
    temporary = path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _git_commit() -> str | None:
    def git(*args: str) -> str:
        return subprocess.run(["git", *args], capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
