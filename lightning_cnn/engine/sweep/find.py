"""Which sweep a user means."""

from pathlib import Path

from lightning_cnn.engine.sweep.study import FOLDER, Study
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.plain_text import check_text
from lightning_cnn.tracking.record import CONFIG


def find_study(name: str, runs_dir: Path) -> Study:
    """The study that a user means by the folder or the name of an experiment.

    Raises:
        UserError: If there is none, or the name holds a control character.
    """
    check_text("SWEEP", name)
    for home in (runs_dir / name, Path(name), Path(name).parent):
        if (home / FOLDER / CONFIG).is_file():
            return Study(home)
    known = [path.parents[1].name for path in runs_dir.glob(f"*/{FOLDER}/{CONFIG}")]
    hint = did_you_mean(Path(name).name, known) or (f"; there are {', '.join(known)}" if known else "")
    raise UserError(f"no sweep {name!r} under {runs_dir}/{hint}")
