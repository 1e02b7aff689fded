"""The experiments that come with the package, found by their names from any directory."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from lightning_cnn.errors import did_you_mean
from lightning_cnn.regular_files import find_files

SHIPPED = Path(__file__).resolve().parents[1] / "experiments"
# names that earlier versions had
RENAMED = {"returns_honest": "returns_point_in_time"}


def configs_in(folder: Path, fields: Sequence[str] = ("data", "model")) -> dict[Path, str]:
    """The experiments in a folder, to any depth, each with its text: other YAML files set neither `data` nor `model`.

    Args:
        folder: Where to look.
        fields: A file counts if it sets one of these.
    """
    top = re.compile(rf"^({'|'.join(fields)})\b", re.MULTILINE)
    files = sorted(map(Path, find_files(folder, [".yaml"]).files))
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in files}
    return {path: text for path, text in texts.items() if top.search(text)}


def shipped_files() -> dict[str, Path]:
    """The shipped files by name: experiments as `mnist_lenet5` and `images/mnist_lenet5`, searches as `sweeps/NAME`."""
    experiments, searches = configs_in(SHIPPED), configs_in(SHIPPED / "sweeps", ["search"])
    whole = {path.relative_to(SHIPPED).with_suffix("").as_posix(): path for path in (*experiments, *searches)}
    return {path.stem: path for path in experiments} | whole


def experiment_file(name: str | Path) -> tuple[Path, Path | None]:
    """The file that a user means by a name or a path, and the shipped file of that name where a local one wins.

    Args:
        name: A path, with or without `.yaml`, or the name of a shipped experiment.
    """
    shipped = shipped_files().get(str(name))
    for local in (Path(name), Path(f"{name}.yaml")):
        if os.path.exists(local) and not local.is_dir():
            return local, None if shipped is None or local.samefile(shipped) else shipped
    return shipped or Path(name), None


def nearest_names(path: Path) -> str:
    """The names of shipped experiments nearest to a path that does not exist, as the end of an error message."""
    names = shipped_files()
    stem = RENAMED.get(path.stem, path.stem)
    for name in (f"{path.parent.name}/{stem}", stem):
        if name in names:
            return f"; did you mean {name}?"
    return did_you_mean(stem, (name for name in names if "/" not in name))
