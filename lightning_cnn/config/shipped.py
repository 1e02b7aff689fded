"""The experiments that come with the package, found by their names from any directory."""

from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[1] / "experiments"


def experiment_file(name: str | Path) -> Path:
    """The file that a user means: one that is there, else a shipped experiment such as `mnist_lenet5`.

    Args:
        name: Its path, or the name of a shipped one.
    """
    path = Path(name)
    shipped = SHIPPED / f"{name}.yaml"
    if path.is_absolute() or ".." in path.parts or (path.exists() and not path.is_dir()):
        return path
    return shipped if shipped.is_file() else path
