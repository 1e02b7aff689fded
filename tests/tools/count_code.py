"""Lines of code of a package, by room: `python tests/tools/count_code.py lightning_cnn`.

Docstrings, comments and blank lines don't count.
"""

import ast
import io
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def count(source: str) -> int:
    """The lines of code of a file."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            docs |= {*range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    return len(lines - docs)


def main(root: Path) -> None:
    """Prints the number of files, of lines and of lines of code of each room, and of all."""
    rooms: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for path in sorted(root.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        rooms[path.relative_to(root).parts[0]].append((len(source.splitlines()), count(source)))
    rooms["all"] = [each for room in rooms.values() for each in room]
    for name, files in rooms.items():
        lines, code = (sum(column) for column in zip(*files, strict=True))
        print(f"{name:18} {len(files):4} files {lines:6} lines {code:6} of code")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
