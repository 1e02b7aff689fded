"""Makes a user's own files in the working directory importable: `--data my_data.Stripes`."""

import sys
from pathlib import Path


def find_user_code() -> None:
    """Appends the working directory to Python's path; at its end, so that it hides no library."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
