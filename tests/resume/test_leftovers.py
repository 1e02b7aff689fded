"""What killed processes leave of files that they were writing: ours is removed, that of others stays."""

import os
from pathlib import Path

import pytest
from test_resumption import FEATURES

from lightning_cnn.cli import main
from lightning_cnn.resume.leftovers import is_temporary, remove_temporary_files


def test_halves_of_others_stay() -> None:
    """Of a process that is at work here, and what only looks like one."""
    here = [f"run.json.tmp-{os.getppid()}-0a1b2c3d", "notes.tmp-mine", "paper.tmp-1a"]
    here += ["results.tmp-999999999", "thesis.v2.tmp-999999999-0a1b2c3d", "mine.png.tmp-999999999"]
    gone = ["run.json.tmp-999999999", f"config.yaml.tmp-{os.getpid()}-0a1b2c3d", "figures/x.png.tmp-999999999-0a1b2c3d"]
    gone += ["tables/x.csv.tmp-999999999-0a1b2c3d", "checkpoints/x.ckpt.tmp-999999999-0a1b2c3d"]
    for folder in ("figures", "tables", "checkpoints"):
        Path(folder).mkdir()
    for name in (*here, *gone):
        Path(name).touch()
    remove_temporary_files(Path("."))
    assert sorted(path.name for path in Path(".").glob("*.tmp-*")) == sorted(here)
    assert not list(Path(".").glob("*/*"))


@pytest.mark.figures
def test_every_half_of_ours_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files that a run replaces would be found if it were killed meanwhile."""
    made, replace = list[Path](), Path.replace

    def noting(path: Path, target: Path) -> Path:
        made.append(path)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noting)
    assert main(["train", *FEATURES[1:]]) == 0
    (folder,) = Path("runs").glob("*/*")
    inside = [path for path in made if folder.name in path.parts]
    assert {path.parent.name for path in inside} == {folder.name, "checkpoints", "figures", "tables"}
    assert not [path for path in inside if not is_temporary(path)]
