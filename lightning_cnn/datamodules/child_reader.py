"""Reads files in a process of its own, which a crafted file may crash.

The libraries that know MATLAB's formats, HDF5 and scipy's, are written in C and trust what they read.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHILD = Path(__file__).with_name("child_main.py")


class ChildDied(ValueError):
    """The process that was to read a file was killed by a signal, as by a segmentation fault."""


def read_in_child(reader: Path, path: Path) -> list[NDArray[Any]]:
    """The arrays that a reader finds in a file. The child needs 0.3 to 0.5 s to start.

    Args:
        reader: Python file with a function `read(path)` that returns arrays without objects in them, and
            that imports nothing of this package: the child is there before torch would be imported.
        path: The file.

    Returns:
        What `read` returns.

    Raises:
        OSError: If the file can't be opened.
        ValueError: If the reader fails; its text is that of the reader's exception.
        ChildDied: If the child crashes.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    with _nameless_file() as file:
        words = [sys.executable, "-P", str(CHILD), str(reader), str(path), str(file.fileno())]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=[file.fileno()])
        if done.returncode < 0:
            raise ChildDied(f"it crashed its reader by {signal.Signals(-done.returncode).name}")
        if done.returncode:
            raise ValueError(done.stdout.decode(errors="replace") or f"its reader ended with {done.returncode}")
        file.seek(0)
        return [np.lib.format.read_array(file, allow_pickle=False) for _ in range(int(done.stdout))]


def _nameless_file() -> Any:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("lightning_cnn"), "w+b", buffering=0)  # numpy reads it at once
    return tempfile.TemporaryFile(buffering=0)
