"""Tags and a note that a user gives to a run, also while it is being trained. Imports neither torch nor Lightning."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import check_text
from lightning_cnn.regular_files import read_regular
from lightning_cnn.resume.files import replace_text
from lightning_cnn.tracking.run import RunFolder

FILE = "labels.json"
LONGEST_TAG = 64  # characters, as in W&B


@dataclass
class Labels:
    """The labels of a run.

    Attributes:
        tags: The tags, each once; until they are changed those that the training was given.
        note: Any text, in one line.
    """

    tags: list[str] = field(default_factory=list)
    note: str = ""

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """The labels of a run; a file that is damaged counts as none."""
        try:
            content = json.loads(read_regular(run.folder / FILE))
            tags, note = content["tags"], content["note"]
            if isinstance(note, str) and isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
                return cls(tags, note)
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            pass
        return cls([*run.record.tags])

    def change(self, add: Iterable[str] = (), drop: Iterable[str] = (), note: str | None = None) -> None:
        """Changes the labels.

        Args:
            add: Tags to add.
            drop: Tags to drop.
            note: The new note; None keeps the old one.

        Raises:
            UserError: If a tag is empty, too long, or not there to be dropped, or a text holds a control character.
        """
        add, drop = [*add], [*drop]
        check_text("tag", [*add, *drop])
        check_text("note", note)
        for tag in add:
            if not tag.strip() or len(tag) > LONGEST_TAG:
                raise UserError(f"tag {tag!r:.80}: expected 1 to {LONGEST_TAG} characters")
        for tag in drop:
            if tag not in self.tags:
                raise UserError(f"tag {tag!r}: the run has {', '.join(self.tags) or 'no tags'}")
        self.tags = [tag for tag in dict.fromkeys([*self.tags, *add]) if tag not in drop]
        self.note = self.note if note is None else note

    def write(self, folder: Path) -> None:
        """Writes them into a run folder.

        Raises:
            StorageError: If the folder can't be written.
        """
        replace_text(folder / FILE, json.dumps(asdict(self), indent=2) + "\n")
