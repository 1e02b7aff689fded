"""Commands that must be refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_cnn.cli import main


def refusing(verb: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a verb that must fail with exit code 2 without leaving anything; the function returns its one line."""

    def run(*words: str) -> str:
        before = sorted(Path.cwd().rglob("*"))
        capsys.readouterr()
        assert main([verb, *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.startswith("error: ") and len(printed.err.splitlines()) == 1
        assert sorted(Path.cwd().rglob("*")) == before
        return printed.err

    return run
