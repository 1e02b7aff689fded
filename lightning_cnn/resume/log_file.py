"""What a training within another command prints: into a file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from lightning_cnn.plain_text import PlainStream
from lightning_cnn.regular_files import without_links


@contextmanager
def printing_to(path: Path) -> Iterator[None]:
    """What is printed goes to the end of a file, and what Lightning logs, whose handlers keep their first stream."""
    names = ("pytorch_lightning", "lightning_fabric")
    handlers = [handler for name in names for handler in logging.getLogger(name).handlers]
    streams = [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]
    with open(path, "a", encoding="utf-8", opener=without_links) as file:
        log: Any = PlainStream(file)
        with redirect_stdout(log), redirect_stderr(log):
            before = [handler.setStream(log) for handler in streams]
            try:
                yield
            finally:
                for handler, stream in zip(streams, before, strict=True):
                    handler.setStream(stream or sys.stderr)
