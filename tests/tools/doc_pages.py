"""Reads the commands and the blocks of code of a Markdown page.

A block whose title names a file (```python title="my_nets.py") is written to it. `<!-- not run: reason -->` above a
block says that its commands are parsed only, and its Python compiled only.
"""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

OURS = r"(uv run )?lightning-cnn|python -m lightning_cnn"
# what a page may show beside our own commands; it is not run
OTHERS = (
    *("pip", "uv", "uvx", "python", "python3", "source", "conda", "apt-get", "git", "bash"),
    *("sbatch", "squeue", "scancel", "srun", "torchrun", "kubectl", "wandb", "optuna"),
    *("cd", "ls", "cat", "head", "grep", "mkdir", "cp", "unzip", "kill", "export"),
)
SHELL = ("", "bash", "console", "sh", "shell", "text")
BLOCK = re.compile(
    r"(?P<reason><!-- not run: [^\n]+ -->\s*\n\s*)?"
    r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<content>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


@dataclass
class Command:
    """A command of ours.

    Attributes:
        text: As it stands on the page.
        words: The words behind `lightning-cnn`.
        variables: Set in front of it.
    """

    text: str
    words: list[str]
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class Block:
    """A block of code.

    Attributes:
        language: Such as `python`; "" for none.
        file: The file that it is written to, if any.
        content: Its text.
        is_run: Whether it is run, not only parsed.
        line: The line on which its content begins.
    """

    language: str
    file: str
    content: str
    is_run: bool
    line: int


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for found in BLOCK.finditer(text):
        language, _, rest = found["head"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        line = text[: found.start("content")].count("\n") + 1
        content = textwrap.dedent(found["content"])
        yield Block(language, title[1] if title else "", content, not found["reason"], line)


def commands(block: Block, variables: dict[str, str]) -> Iterator[Command]:
    """Our commands in a block of shell lines.

    Args:
        block: The block.
        variables: What the page has exported so far; `export` adds to it.

    Raises:
        ValueError: If a line is neither a command of ours nor begins with one of `OTHERS`.
    """
    if block.language not in SHELL or block.file:
        return
    lines = block.content.replace("\\\n", " ").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    if block.language == "console" or typed:  # the other lines are what was printed
        lines = typed
    elif block.language in ("", "text") and not any(re.match(rf"({OURS}|{'|'.join(OTHERS)}) ", line) for line in lines):
        return  # what was printed, or the tree of a folder
    for line in lines:
        for text in re.split(r" && | \|\| |; | \| ", line.strip()):
            if text and not text.startswith("#"):
                yield from _command(text.strip(), variables)


def inline_commands(text: str) -> Iterator[Command]:
    """Our commands in the running text and in tables: ``lightning-cnn train ...``."""
    text = BLOCK.sub("", text)
    for found in re.findall(rf"`((?:{OURS}) [^`]+)`", text):
        if not re.search(r"\bVERB\b|\.\.\.|…|\$", found[0]):
            yield from _command(found[0].replace("\\|", "|"), {})


def _command(text: str, variables: dict[str, str]) -> Iterator[Command]:
    own: dict[str, str] = {}
    rest = text
    while found := re.match(r"([A-Z_]+)=(\S*) +", rest):
        own[found[1]] = found[2]
        rest = rest[found.end() :]
    if exported := re.match(r"export ([A-Z_0-9]+)=(.*)", rest):
        variables[exported[1]] = " ".join(shlex.split(exported[2], comments=True))
    rest = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), rest)
    if found := re.match(rf"(?:{OURS})( |$)", rest):
        yield Command(text, shlex.split(rest[found.end() :], comments=True), own)
    elif found := re.search(r"torchrun .* -m lightning_cnn ", rest):
        yield Command(text, shlex.split(rest[found.end() :], comments=True), own | {"TORCHRUN": "1"})
    elif not re.match(rf"({'|'.join(map(re.escape, OTHERS))})\b", rest):
        raise ValueError(f"neither a command of ours nor one that may stand beside them: {text}")


def pages(project: Path) -> list[Path]:
    """The pages whose commands and blocks are run."""
    return [project / "README.md", project / "CONTRIBUTING.md", *sorted((project / "docs").rglob("*.md"))]
