"""The processes that work on a study: which they are, whether they live, and how they died."""

import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_cnn.resume.files import make_folder
from lightning_cnn.resume.heartbeat import Heartbeat, Holder, holder
from lightning_cnn.resume.signals import on_first_signal


class Workers:
    """The heartbeats of the processes that work on a study, in a folder that they share.

    A process removes its file when it ends in order. One that is told to stop and killed before it has ended leaves an
    empty file, and one that is killed without warning a file that names it. Neither of this needs room on the disk.

    Args:
        folder: The folder, on the file system that the processes share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._beat: Heartbeat | None = None

    def owner(self) -> dict[str, Any]:
        """This process, as what it takes says to whom it belongs; its heartbeat begins here at the latest.

        Raises:
            StorageError: If the file can't be written.
        """
        make_folder(self.folder, parents=False)
        while self._beat is None:
            self._beat = Heartbeat.announce(
                self.folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            )
            if self._beat is not None:
                self._beat.beat()
        return asdict(self._beat.holder) | {"file": self._beat.path.name}

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Gives signs of life of this process.

        Raises:
            StorageError: If the file can't be written.
        """
        self.owner()
        beat = self._beat
        assert beat is not None
        try:
            with on_first_signal(beat.empty):
                yield
        finally:
            beat.release()
            self._beat = None

    def is_running(self, owner: Mapping[str, Any]) -> bool:
        """Whether a process is still there, as far as one can see from this one."""
        known = Holder(**{name: value for name, value in owner.items() if name != "file"})
        return holder(self._file(owner), known) is not None

    def was_killed(self, owner: Mapping[str, Any]) -> bool:
        """Whether a process that is gone died at its work, without having been told to stop."""
        try:
            return self._file(owner).stat().st_size > 0
        except FileNotFoundError:
            return False

    def forget(self, owner: Mapping[str, Any]) -> None:
        """Removes the file of a dead process."""
        with suppress(OSError):
            self._file(owner).unlink()

    def _file(self, owner: Mapping[str, Any]) -> Path:
        return self.folder / Path(str(owner["file"])).name  # whoever has written the journal
