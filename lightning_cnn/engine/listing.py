"""What there is to choose from, and what was run, as data frames. Imports neither torch nor Lightning."""

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cnn.config.shipped import SHIPPED, configs_in
from lightning_cnn.engine import catalogue
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.resume.files import replace_text
from lightning_cnn.tracking import comparison
from lightning_cnn.tracking.cache import remembered
from lightning_cnn.tracking.labels import FILE as LABELS
from lightning_cnn.tracking.labels import Labels
from lightning_cnn.tracking.record import RECORD, default_runs_dir
from lightning_cnn.tracking.removal import disk_used
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import run_folders, select_runs

if TYPE_CHECKING:
    from pandas import DataFrame

Name = str | Path | RunFolder
WRITTEN = ("", "checkpoints", "figures", "tables", "wandb")  # folders of a run; what is written there changes its size
OWN = Path("experiments")  # where a user's experiments are looked for


def list_architectures(pattern: str | None = None) -> "DataFrame":
    """The networks by `name`: `description`, and `from` where they come, `lightning_cnn` or `timm`.

    Args:
        pattern: Only names like this, such as `resnet*`; with one the networks of timm are among them.

    Raises:
        UserError: If no name is like it.
    """
    return _frame(entries("architectures", pattern), ["description", "from"])


def list_data(pattern: str | None = None) -> "DataFrame":
    """The data sets by `name`, the class in `lightning_cnn.datamodules`: `description`.

    Args:
        pattern: Only names like this.

    Raises:
        UserError: If no name is like it.
    """
    return _frame(entries("data", pattern))


def list_experiments(pattern: str | None = None) -> "DataFrame":
    """The experiments by `name`, as `train` takes it: `folder` and `description`.

    Shipped experiments come first, then the files in `experiments/` of the working directory, named by their paths.

    Args:
        pattern: Only names like this, such as `mnist*` or `images/*`.

    Raises:
        UserError: If no name is like it.
    """
    return _frame(entries("experiments", pattern), ["folder", "description"])


def list_runs(runs_dir: str | Path | None = None, pattern: str | None = None) -> "DataFrame":
    """The runs by `name`, oldest first: `status`, `start` (UTC), and `best`, the best value of `metric`.

    Further columns are `tags`, `note`, and `bytes`, the size of the run folder.

    Args:
        runs_dir: Folder of all runs (default: $LIGHTNING_CNN_RUNS or runs).
        pattern: Only names like this.

    Raises:
        UserError: If no name is like it.
    """
    from pandas import to_datetime

    found = entries("runs", pattern, runs_dir)
    frame = _frame(
        [entry | {"metric": entry["best"].get("metric"), "best": entry["best"].get("value")} for entry in found],
        ["status", "start", "metric", "best", "tags", "note", "bytes"],
    )
    return frame.assign(start=to_datetime(frame["start"], utc=True, format="ISO8601", errors="coerce"))


def compare(
    runs: Sequence[Name] | Name | None = None,
    *,
    metrics: Sequence[str] | str | None = None,
    sort: str | None = None,
    group_by: str | None = None,
    last: bool = False,
    html: str | Path | None = None,
    runs_dir: str | Path | None = None,
) -> "DataFrame":
    """Compares runs: their metrics, and the settings in which they differ.

    Args:
        runs: A run, or several: each a `Run`, a folder (of a run, an experiment, or all runs), a run id,
            `<experiment>/<run id>`, an experiment, or a glob such as `digits*/2026*`; None takes all.
        metrics: Metrics to show, by name or pattern; None takes the main ones.
        sort: Sort by a metric, a column or a setting, best first; `best` takes the best value.
        group_by: A setting, such as `seed`: runs that differ in it alone become one row, with means, standard
            deviations and counts.
        last: Show the metrics of the last epoch, too.
        html: Write a page with the table and the learning curves to this file.
        runs_dir: Folder of all runs (default: $LIGHTNING_CNN_RUNS or runs).

    Returns:
        One row per `run`, with the columns `start` (UTC), `status`, `epochs`, `seconds`, `parameters`, the best value
        and epoch, the metrics of the best checkpoint, and the settings. With `group_by` one row per `experiment`, with
        the settings, and for each metric `<metric>`, `<metric> std` and `<metric> n`.

    Raises:
        UserError: If there are no such runs, metrics or settings, or the page can't be written.
    """
    from lightning_cnn.tracking.comparison.frame import grouped, to_frame

    names = [runs] if isinstance(runs, Name) else runs or ()
    if not isinstance(names, Iterable):
        raise UserError(f"`runs` {runs!r}: expected a run, its folder, its id, an experiment, or a list of these")
    wanted = [metrics] if isinstance(metrics, str) else metrics
    found = select_runs(names, Path(runs_dir or default_runs_dir()))
    columns, rows = comparison.build(found, wanted, last=last or html is not None)
    if sort is not None and group_by is None:
        rows = comparison.sort(rows, sort)
    if html is not None:
        write_page(html, columns, rows)
    columns = [column for column in columns if last or column.kind != "last"]
    return to_frame(columns, rows) if group_by is None else grouped(columns, rows, group_by, sort)


def write_page(path: str | Path, columns: Sequence[comparison.Column], rows: Sequence[comparison.Row]) -> None:
    """Writes the page of a comparison."""
    from lightning_cnn.tracking.comparison.page import page  # only here: most calls have no need of it

    replace_text(Path(path), page(columns, rows, Path(path).parent), "choose another file for `html`")


def entries(kind: str, pattern: str | None = None, runs_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """The entries of a kind, each with its `name`; timm's networks are among them where there is a pattern.

    Args:
        kind: `architectures`, `data`, `experiments` or `runs`.
        pattern: Only names like this; without a wildcard anywhere in the name.
        runs_dir: Folder of all runs.

    Raises:
        UserError: If no name is like the pattern.
    """
    if kind == "runs":
        folders = run_folders(Path(runs_dir or default_runs_dir()))
        about = remembered("list", folders, (RECORD, LABELS, *WRITTEN), _run_entry)
        listed = [{**entry, "folder": str(folder)} for entry, folder in zip(about, folders, strict=True)]
        found = sorted(listed, key=_age)
    elif kind == "architectures":
        found = _architectures(with_timm=pattern is not None)
    elif kind == "data":
        found = [*map(asdict, catalogue.data_modules())]
    else:
        found = _experiments()
    if pattern is None:
        return found
    wanted = pattern.lower() if any(sign in pattern for sign in "*?[") else f"*{pattern.lower()}*"
    matching = [
        entry
        for entry in found
        if any(fnmatch.fnmatchcase(name.lower(), wanted) for name in (entry["name"], _in_folder(entry)))
    ]
    if not matching:
        hint = did_you_mean(pattern.strip("*"), (entry["name"] for entry in found))
        raise UserError(f"no {kind} match {pattern!r}{hint or f'; see `list_{kind}()`'}")
    return matching


def _architectures(with_timm: bool) -> list[dict[str, Any]]:
    ours = catalogue.architectures()
    own = {entry.name for entry in ours}
    timm = [entry for entry in catalogue.timm_networks() if entry.name not in own] if with_timm else []
    origins = {"lightning_cnn": ours, "timm": timm}
    return [asdict(entry) | {"from": origin} for origin, listed in origins.items() for entry in listed]


def _experiments() -> list[dict[str, Any]]:
    found = [(path.stem, path.parent.name, text) for path, text in configs_in(SHIPPED).items()]
    if not (OWN.is_dir() and OWN.samefile(SHIPPED)):
        found += [(str(path), str(path.parent), text) for path, text in configs_in(OWN).items()]
    return [{"name": name, "folder": folder, "description": _first_comment(text)} for name, folder, text in found]


def _in_folder(entry: dict[str, Any]) -> str:
    return f"{entry['folder']}/{entry['name']}" if "description" in entry and "folder" in entry else entry["name"]


def _first_comment(text: str) -> str:
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")


def _run_entry(folder: Path) -> tuple[dict[str, Any], bool]:
    """The entry of a run, and whether it stays as it is until a file of the run changes."""
    run = RunFolder.look(folder)
    about = {"name": run.label, "status": run.status, "start": run.record.start, "best": run.record.best}
    about |= asdict(Labels.of(run)) | {"bytes": disk_used(folder)}
    error = {"error": run.record.error} if run.record.error else {}
    return about | error, run.record.status not in ("running", "damaged")


def _age(entry: dict[str, Any]) -> tuple[str, str, str]:
    experiment, _, run_id = entry["name"].rpartition("/")
    return entry["start"], run_id, experiment


def _frame(found: list[dict[str, Any]], columns: Sequence[str] = ("description",)) -> "DataFrame":
    from pandas import DataFrame

    return DataFrame(found, columns=["name", *columns]).set_index("name")
