"""The run folder `runs/<experiment>/<run id>/`: made, held, resumed, finished. Imports neither torch nor Lightning."""

import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

from lightning_cnn.errors import StorageError, UserError, first_line
from lightning_cnn.regular_files import read_regular
from lightning_cnn.resume.files import make_folder, replace_text
from lightning_cnn.resume.heartbeat import Holder, file_system_time
from lightning_cnn.resume.leftovers import is_temporary, remove_temporary_files, remove_unstarted_run
from lightning_cnn.resume.run_lock import RUN_FOLDER, RunLock, holder_of, in_use, lock_files
from lightning_cnn.tracking.git_commit import git_commit
from lightning_cnn.tracking.record import CONFIG, NEW_ID, RECORD, RunRecord, Status, new_folder
from lightning_cnn.tracking.upgrades import holder_by_record, upgraded_record

PACKAGES = ("lightning-cnn", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "wandb")


class RunFolder:
    """A run folder and its record.

    Args:
        folder: The run folder.
        record: The record that belongs to it.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self.record = record
        self._lock: RunLock | None = None
        self._began = (datetime.now(UTC), time.monotonic())  # of the part that this process trains
        self._made: list[Path] = []  # folders that this process has made for it, the innermost first

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        name: str,
        command: str,
        seed: int | None,
        folder: Path | None = None,
        config: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> Self:
        """Makes a new run folder with the status `running`.

        Args:
            runs_dir: The folder of all runs.
            name: Name of the experiment.
            command: The command line, as typed.
            seed: The seed of the run.
            folder: The run folder; default `<runs_dir>/<name>/<date>-<time>-<four letters>`.
            config: The whole configuration as YAML. It is written before the record, so that each run has one.
            facts: Further entries of the record, by name.

        Raises:
            UserError: If the folder can't be written, holds other things, or another process has begun a run in it.
        """
        folder = folder or new_folder(runs_dir, name)
        record = RunRecord(id=folder.name, name=name, seed=seed, **facts or {})
        if not NEW_ID.fullmatch(folder.name):  # others may have given theirs the same name
            record.wandb = {"id": f"{folder.name}-{secrets.token_hex(4)}"}
        run = cls(folder, record)
        run._made = [each for each in (folder, *folder.parents) if not each.exists()]
        try:
            make_folder(folder, "choose another place with `runs_dir`")
            strange = [path for path in folder.iterdir() if not is_temporary(path) and not _is_same(path, config)]
            if strange and not (folder / RECORD).exists():
                raise UserError(f"${RUN_FOLDER} names {folder}, which contains other files: use a new folder")
            run._lock = RunLock.take(folder)
        except StorageError:  # else another process may be about to use them
            for each in run._made:
                with suppress(OSError):  # only what is empty
                    each.rmdir()
            raise
        if (folder / RECORD).exists():
            run.release()
            raise UserError(f"another process has started a run in {folder}; repeat the command to resume it")
        try:
            remove_temporary_files(folder)  # a job may have been killed when it had just made the folder
            run._begin(command)
            record.start = run._began[0].isoformat(timespec="milliseconds")
            if config:
                run.write_config(config)
            run.save()
        except BaseException:
            run.discard()
            run.release()
            raise
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads a run folder.

        Raises:
            UserError: If there is no readable `run.json` in it.
        """
        path = folder / RECORD
        try:
            return cls(folder, RunRecord.parse(upgraded_record(folder, json.loads(read_regular(path)))))
        except FileNotFoundError:
            raise UserError(f"{folder} is not a run folder: it has no {RECORD} (`list_runs()`)") from None
        except PermissionError:
            raise UserError(f"{path} can't be read (permission denied)") from None
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            reason = first_line(error, 200)
            raise UserError(f"{path} can't be read ({reason}): move the folder away or restore the file") from None

    @classmethod
    def look(cls, folder: Path) -> Self:
        """Reads a run folder for a list; one that can't be read has the status `damaged`, and says why in `error`."""
        try:
            return cls.open(folder)
        except UserError as error:
            return cls(folder, RunRecord(folder.name, folder.parent.name, "damaged", error=str(error)))

    @property
    def id(self) -> str:
        """Name of the run folder."""
        return os.path.basename(os.path.abspath(self.folder))

    @property
    def experiment(self) -> str:
        """Name of the folder that holds the run folder."""
        return os.path.basename(os.path.dirname(os.path.abspath(self.folder)))

    @property
    def label(self) -> str:
        """`<experiment>/<run id>`: how a run is shown and named, whatever its record says."""
        return f"{self.experiment}/{self.id}"

    def check_free(self) -> None:
        """Refuses to go on with a run that another process trains.

        Raises:
            UserError: If one does.
        """
        if holder := self._holder():
            raise in_use(self.folder, holder)

    def hold(self) -> None:
        """Keeps other processes from the run, until `finish` or `release`; does nothing where this process does so.

        Raises:
            UserError: If another process holds it, or has changed it since it was opened.
            StorageError: If the folder can't be written.
        """
        if self._lock is not None:
            return
        if not lock_files(self.folder):
            self.check_free()  # by a version that had no locks
        lock = RunLock.take(self.folder)
        try:
            if RunFolder.open(self.folder)._text() != self._text():
                raise UserError(f"another process has just changed {self.folder}; repeat the command")
        except BaseException:
            lock.release()
            raise
        self._lock = lock

    def release(self) -> None:
        """Lets other processes go on with the run."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def checkpoint(self, kind: Literal["best", "last"]) -> Path:
        """Where the checkpoint with the best or the last weights lies, if there is one."""
        return self.folder / "checkpoints" / f"{kind}.ckpt"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from the run within the block, as `hold` does."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    @property
    def lost(self) -> bool:
        """Whether this process no longer holds the run, as another one has taken it for dead, or the folder is gone."""
        return self._lock is not None and self._lock.lost

    def go_on(self, command: str) -> None:
        """Marks the run as running again, in this process.

        Raises:
            UserError: If another process has been faster.
        """
        self.hold()
        self._began = (datetime.now(UTC), time.monotonic())
        record = self.record
        if record.end:
            paused = (self._began[0] - datetime.fromisoformat(record.end)).total_seconds()
        else:  # a killed run has no end, but a last sign of life
            saved = (self.folder / RECORD).stat().st_mtime
            last_heartbeat = self._lock.last_heartbeat if self._lock is not None else None
            paused = max(0.0, file_system_time(self.folder) - max(saved, last_heartbeat or saved))
        record.paused += paused
        record.end = record.error = None
        # a test of the weights before is none of those to come
        record.metrics = {name: v for name, v in record.metrics.items() if not name.startswith("test/")}
        self._begin(command)
        self.save()

    def finish(self, status: Status, error: str | None = None) -> None:
        """Writes the end of the run, and lets other processes go on with it."""
        self.record.status = status
        self.record.error = " ".join(error.split()) if error else None
        # not by the clock of the machine, which may have been set since
        began, seconds = self._began[0], time.monotonic() - self._began[1]
        self.record.end = (began + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
        try:
            self.save()
        except BaseException:
            if self._lock is not None:
                self._lock.release(leave=True)  # the record says `running`: the lock tells that it is not
            raise
        finally:
            self.release()

    def discard(self) -> bool:
        """Removes a run that this process has made, where it holds nothing worth keeping, and lets it go.

        A checkpoint is worth keeping, and so is every file that is none of ours. A folder that was there before stays.

        Returns:
            Whether it was removed.
        """
        try:
            if not remove_unstarted_run(self.folder):
                return False
        except OSError:  # the disk refuses that, too
            return False
        self.release()
        for folder in (*sorted(self.folder.glob("**/"), reverse=True), *self._made):
            if folder != self.folder or folder in self._made:
                with suppress(OSError):  # only what is empty
                    folder.rmdir()
        return True

    def save(self) -> None:
        """Writes `run.json`."""
        replace_text(self.folder / RECORD, self._text())

    @property
    def status(self) -> Status:
        """The status in the record, but `interrupted` where it says `running` and the process is gone."""
        status = self.record.status
        return "interrupted" if status == "running" and self.record.pid and self._holder() is None else status

    def _holder(self) -> Holder | None:
        """Who trains the run; None where nobody does."""
        if lock_files(self.folder):
            return holder_of(self.folder)
        return holder_by_record(self.folder, self.record)

    def _text(self) -> str:
        return json.dumps(self.record.as_json(), indent=2, allow_nan=False) + "\n"

    def write_config(self, text: str) -> None:
        """Writes `config.yaml` in one step.

        Args:
            text: The whole configuration as YAML.
        """
        replace_text(self.folder / CONFIG, text)

    def _begin(self, command: str) -> None:
        record = self.record
        record.status, record.command, record.directory = "running", command, os.getcwd()
        record.git_commit, record.versions = git_commit(), _versions()
        record.pid, record.host, record.job = os.getpid(), socket.gethostname(), os.environ.get("SLURM_JOB_ID", "")


def _is_same(path: Path, config: str) -> bool:
    """Whether this is the configuration, left by a process that was killed before it had written the record."""
    return path.name == CONFIG and path.is_file() and path.read_text("utf-8") == config


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
