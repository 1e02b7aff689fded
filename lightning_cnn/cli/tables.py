"""Tables of aligned columns, as wide as the terminal allows."""

import os
import shutil
import sys
from collections.abc import Sequence

from lightning_cnn.plain_text import escaped

GAP = "  "


def terminal_width() -> int | None:
    """Columns of the terminal (`$COLUMNS` first); None where the output goes to a file or a pipe: no limit there."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def text_table(rows: Sequence[Sequence[str]], right: Sequence[bool] = (), width: int | None = None) -> str:
    """Rows as lines of aligned columns.

    Args:
        rows: The cells. A header is simply the first row.
        right: For each column, whether it is aligned to the right; all to the left if empty.
        width: Longer lines are trimmed to this many characters; None leaves them whole.
    """
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = [">" if is_right else "<" for is_right in (*right, *[False] * len(widths))]
    form = GAP.join(f"{{:{sign}{width}}}" for sign, width in zip(signs, widths, strict=False))
    lines = [form.format(*row).rstrip() for row in rows]
    return "\n".join(trim(line, width) for line in lines)


def trim(text: str, width: int | None) -> str:
    """The text, cut with an ellipsis at the end where it is longer than the width."""
    return text if width is None or len(text) <= width else text[: max(width - 1, 0)] + "…"
