"""Going on with a run: which one, from where, and whether it is still the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_cnn.config.checkpoint import read_checkpoint
from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import Kind
from lightning_cnn.config.trust import named_runs_dir, note_origin
from lightning_cnn.engine.chosen import callback_configs
from lightning_cnn.errors import UserError
from lightning_cnn.regular_files import read_regular
from lightning_cnn.resume.lightning_loops import finished_epochs, trained_epochs
from lightning_cnn.resume.processes import process_rank
from lightning_cnn.tracking.record import CONFIG, default_runs_dir
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import find_run
from lightning_cnn.tracking.upgrades import upgraded_config

# what a run that goes on must keep, but for where the data lie and how they are read
KEPT = ("data", "model", "model.architecture", "model.architecture_options", "model.detector", "seed_everything")
FREE = ("data.root", "data.download", "data.num_workers", "data.on_device", "data.max_memory", "data.check_md5")


def resumed_run(name: str, runs_dir: object, kind: Kind) -> RunFolder:
    """The run that a user names to go on with.

    Args:
        name: Its name.
        runs_dir: The folder of all runs, if one is given; it counts as the user's.
        kind: What is to go on with it: a walk-forward goes on with one, the others don't.

    Raises:
        UserError: If there is no such run, it is none of that kind, or another process trains it.
    """
    run = find_run(named_runs_dir(runs_dir), name)
    note_origin(run.folder, is_config=True)  # its configuration and its checkpoints are read next
    is_walk_forward = kind.name == "walkforward"
    if (run.folder / "folds").is_dir() != is_walk_forward:
        what, function = ("no", "train") if is_walk_forward else ("a", "walk_forward")
        raise UserError(f"{run.folder} is {what} walk-forward: `{function}(resume={run.record.id!r})`")
    if process_rank() == 0:
        run.check_free()
    return run


def layers_of(run: RunFolder) -> list[Path | dict[str, Any]]:
    """The layers of a configuration with which a run goes on."""
    fields = {name: value for name, value in state_of(run).items() if name == "ckpt_path"}
    return [run.folder / CONFIG, *([fields | _found_by_lightning(run)] if fields else [])]


def state_of(run: RunFolder) -> dict[str, Any]:
    """Fields with which a run goes on: its last checkpoint, and what has been found."""
    last = run.checkpoint("last")
    return run.record.found | ({"ckpt_path": str(last)} if last.is_file() else {})


def saved_values(run: RunFolder) -> dict[str, Any] | None:
    """What the config.yaml of a run holds, None where there is none."""
    path = run.folder / CONFIG
    content: dict[str, Any] | None = upgraded_config(yaml.safe_load(read_regular(path))) if path.is_file() else None
    return content


def _found_by_lightning(run: RunFolder) -> dict[str, Any]:
    """The learning rate that Lightning's own finder set in a run of version 0.1, whose configuration lacks it."""
    names = [str(each.get("class_path")) for each in callback_configs(saved_values(run) or {})]
    if not any(name.startswith("pytorch_lightning") and name.endswith("LearningRateFinder") for name in names):
        return {}
    rate = read_checkpoint(run.checkpoint("last")).get("hyper_parameters", {}).get("lr")
    return {} if rate is None else {"model.lr": rate}


def how_to_go_on(run: RunFolder, function: str) -> str:
    """What to say of a run that has stopped before its end, with the call that goes on with it.

    Args:
        run: The run.
        function: The public function that goes on with it.
    """
    runs_dir = run.folder.parent.parent
    is_found = runs_dir.absolute() == default_runs_dir().absolute()
    command = f"`{function}(resume={run.record.id if is_found else str(run.folder)!r})`"
    if function == "walk_forward":
        return f"the folds are kept in {run.folder}; resume with: {command}"
    if run.checkpoint("last").is_file():
        return f"resume from the last checkpoint in {run.folder} with: {command}"
    kept = "only best.ckpt" if run.checkpoint("best").is_file() else "no checkpoint"
    return f"{kept} was saved in {run.folder}; start over with: {command}"


def check_unchanged(run: RunFolder, config: Config) -> None:
    """Refuses another network or other data in a run that goes on.

    Args:
        run: The run.
        config: The configuration with which it is to go on.

    Raises:
        UserError: For the first setting that differs.
    """
    for name, (before, now) in config.differences(saved_values(run) or config.values).items():
        kept = name in KEPT or name.startswith(("data.", "model.architecture_options."))
        if kept and name not in FREE:
            raise UserError(
                f"`{name}` {now}: {run.folder} was made with {before}, and a run keeps its network and data; remove "
                "it, or start a new run with `ckpt_path`"
            )


def check_done(config: Config, run: RunFolder, once_more: bool = False) -> bool:
    """Whether the training of a run is done.

    Args:
        config: The configuration with which it is to go on.
        run: The run.
        once_more: Whether the same command has been given once more, as for a job that is started again.

    Raises:
        UserError: If a finished run is asked to go on, but not for more epochs.
    """
    if config.checkpoint is None:
        return False
    finished = run.status == "finished"
    before = (saved_values(run) or {}).get("trainer", {}).get("max_epochs")
    # a pruned trial that someone goes on with has come to no end of its own
    early_end_counts = run.status != "pruned" and (not finished or config["trainer"]["max_epochs"] == before)
    done = is_done(config.checkpoint, config["trainer"], go_on=early_end_counts)
    if done and finished and not once_more:
        raise already_finished(str(run.folder), config.checkpoint)
    return done


def already_finished(what: str, checkpoint: dict[str, Any]) -> UserError:
    """The error about a training that has come to its end.

    Args:
        what: The run or the checkpoint.
        checkpoint: What the checkpoint holds.
    """
    done = trained_epochs(checkpoint)
    return UserError(
        f"{what} has finished its {done} epoch{'s' if done != 1 else ''}; to continue, add "
        f"`trainer.max_epochs` {2 * done}"
    )


def is_done(checkpoint: dict[str, Any], trainer: Mapping[str, Any], go_on: bool | None = None) -> bool:
    """Whether a checkpoint is one of a training that has come to its end.

    Args:
        checkpoint: What it holds.
        trainer: The fields of the trainer: `max_epochs`, and `max_steps`, -1 for any number.
        go_on: Whether a run is to go on from it, in which an early end counts, such as that by `EarlyStopping`; None
            where a new run is to start from it.
    """
    epochs = trained_epochs(checkpoint) if go_on is None else finished_epochs(checkpoint)
    early = checkpoint.get("callbacks", {}).get("LastCheckpoint", {}).get("stopped_early", False)
    max_epochs, max_steps = trainer["max_epochs"], trainer["max_steps"]
    enough = max_epochs is not None and 0 <= max_epochs <= epochs
    return enough or 0 <= max_steps <= checkpoint["global_step"] or bool(go_on and early)
