"""Going on with a run: which one, from where, and whether it is still the same."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from lightning_cnn.config.parser import option_values, without_option
from lightning_cnn.config.trust import note_origin
from lightning_cnn.config.user_code import user_code
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.run import CONFIG, RECORD, Run, default_runs_dir, find_run
from lightning_cnn.tracking.settings import flatten

# what a run that goes on must keep, but for where the data lie and how they are read
KEPT = ("data", "model", "model.architecture", "model.architecture_options", "model.detector", "seed_everything")
FREE = ("data.root", "data.download", "data.num_workers", "data.on_device", "data.max_memory", "data.check_md5")


def resumed_run(argv: list[str], rank: int, folder: Path | None = None) -> tuple[Run | None, list[str]]:
    """The run to go on with, and the command line that repeats it with what is typed on top.

    Args:
        argv: The words behind the verb.
        rank: Which process this is.
        folder: A run folder to go on with, where there is a run in it.

    Returns:
        None, and the same words, where a new run is asked for.

    Raises:
        UserError: If there is no such run, or it is still being trained.
    """
    names = option_values(argv, "--resume")
    if names:
        runs_dir = Path((option_values(argv, "--runs_dir") or [str(default_runs_dir())])[-1])
        run = find_run(runs_dir, names[-1])
        note_run(run.folder, argv)
        if (run.folder / "folds").is_dir():
            raise UserError(f"{run.folder} is a walk-forward: walkforward --resume {shlex.quote(run.record.id)}")
        argv = without_option(argv, "--resume")
    elif "--resume" in argv:
        raise UserError("--resume needs a run: --resume RUN (`lightning-cnn list runs`)")
    elif folder is not None and (folder / RECORD).is_file():
        run = Run.open(folder)
    else:
        return None, argv
    if rank == 0:
        run.check_free()
    last = ["--ckpt_path", str(last_checkpoint(run))] if last_checkpoint(run).is_file() else []
    if names:
        return run, ["--config", str(run.folder / CONFIG), *last, *argv]
    # the same command once more: it is the whole configuration, but for what has been found
    return run, [*argv, *found_words(run.record.found), *last]


def found_words(found: dict[str, Any]) -> list[str]:
    """Found settings, as one types them."""
    return [word for name, value in found.items() for word in (f"--{name}", str(value))]


def note_run(folder: Path, argv: list[str]) -> None:
    """Notes whose run this is: its configuration and its checkpoints are read next.

    Args:
        folder: The run folder, or that of a sweep.
        argv: The words that name it.
    """
    user_code().runs_dirs |= {*option_values(argv, "--runs_dir")}
    note_origin(folder, is_config=True)


def last_checkpoint(run: Run) -> Path:
    """Where the state lies from which a run goes on."""
    return run.folder / "checkpoints" / "last.ckpt"


def how_to_go_on(run: Run, verb: str) -> str:
    """What to say of a run that has stopped before its end, with the command to type.

    Args:
        run: The run.
        verb: The verb that goes on with it.
    """
    runs_dir = run.folder.parent.parent
    is_found = runs_dir.absolute() == default_runs_dir().absolute()
    command = shlex.join(["lightning-cnn", verb, "--resume", run.record.id if is_found else str(run.folder)])
    if verb == "walkforward":
        return f"finished folds are kept in {run.folder}; resume with: {command}"
    if last_checkpoint(run).is_file():
        return f"resume from the last checkpoint in {run.folder} with: {command}"
    kept = "only best.ckpt" if (run.folder / "checkpoints" / "best.ckpt").is_file() else "no checkpoint"
    return f"{kept} was saved in {run.folder}; start over with: {command}"


def check_unchanged(run: Run, config: dict[str, Any]) -> None:
    """Refuses another network or other data in a run that goes on.

    Args:
        run: The run.
        config: The whole configuration with which it is to go on.

    Raises:
        UserError: For the first setting that differs.
    """
    path = run.folder / CONFIG
    if not path.is_file():
        return
    before, now = flatten(yaml.safe_load(path.read_text())), flatten(config)
    for name in sorted(before.keys() | now.keys()):
        kept = name in KEPT or name.startswith(("data.", "model.architecture_options."))
        if kept and name not in FREE and before.get(name) != now.get(name):
            raise UserError(
                f"--{name} {now.get(name)}: {run.folder} was made with {before.get(name)}, and a run keeps its network "
                "and its data; leave it out, or start a new run from its weights with --ckpt_path"
            )


def is_done(checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int, go_on: bool | None = None) -> bool:
    """Whether a checkpoint is one of a training that has come to its end.

    Args:
        checkpoint: What it holds.
        max_epochs: Epochs to train.
        max_steps: Steps to train, -1 for any number.
        go_on: Whether a run is to go on from it, in which an early end counts, such as that by `EarlyStopping`; None
            where a new run is to start from it.
    """
    epochs = trained_epochs(checkpoint) if go_on is None else finished_epochs(checkpoint)
    early = checkpoint.get("callbacks", {}).get("LastCheckpoint", {}).get("stopped_early", False)
    return (
        (max_epochs is not None and 0 <= max_epochs <= epochs)
        or 0 <= max_steps <= checkpoint["global_step"]
        or bool(go_on and early)
    )


def trained_epochs(checkpoint: dict[str, Any]) -> int:
    """Epochs of which all batches had been seen when a checkpoint was taken; the last may lack its validation."""
    loops = checkpoint["loops"]["fit_loop"]
    current = loops["epoch_progress"]["current"]
    validating = current["started"] > current["processed"] and loops["epoch_loop.batch_progress"]["is_last_batch"]
    return finished_epochs(checkpoint) + bool(validating)


def finished_epochs(checkpoint: dict[str, Any]) -> int:
    """Epochs that had come to their end when a checkpoint was taken."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
