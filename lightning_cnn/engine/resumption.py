"""Going on with a run: which one, from where, and whether it is still the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Timer

from lightning_cnn.config.checkpoint import read_checkpoint
from lightning_cnn.config.config import Config
from lightning_cnn.config.schema import Kind
from lightning_cnn.config.trust import named_runs_dir, note_origin
from lightning_cnn.engine.chosen import callback_configs
from lightning_cnn.engine.finders.base import LIGHTNING_FINDERS
from lightning_cnn.errors import UserError
from lightning_cnn.modules.base import LOSS_OPTIONS
from lightning_cnn.resume.lightning_loops import finished_epochs, trained_epochs
from lightning_cnn.resume.processes import process_rank
from lightning_cnn.resume.run_lock import RUN_FOLDER
from lightning_cnn.tracking.configurations import SAME_TRIAL
from lightning_cnn.tracking.record import CONFIG, NEW_ID, default_runs_dir
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import find_run
from lightning_cnn.tracking.settings import config_of, flatten, matters, relocated

# what a run that goes on must keep, but for where the data lie and how they are read
KEPT = ("data", "model", "model.architecture", "model.architecture_options", "model.detector", "seed_everything")
NOT_COMPUTED = ("timeout_minutes", "checkpoint.every_n_steps", "checkpoint.every_n_minutes")
FINDERS = tuple(kind.__name__ for kind in LIGHTNING_FINDERS)  # ours are called the same
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
        raise UserError(f"{run.folder} is {what} walk-forward: `{function}(resume={run.id!r})`")
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
    return relocated(config_of(run.folder), run.record.directory) if (run.folder / CONFIG).is_file() else None


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
    name = run.id if NEW_ID.fullmatch(run.id) else run.label  # others may have given theirs the same name
    command = f"`{function}(resume={name if is_found else str(run.folder)!r})`"
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
        if name in LOSS_OPTIONS and config["checkpoint"]["monitor"] == "val/loss":
            raise UserError(
                f"`{name}` {now}: the best epoch of {run.folder} was chosen by the val/loss of {before}, with which "
                "another loss can't be compared; remove it, or start a new run with `ckpt_path`"
            )


def check_done(config: Config, run: RunFolder, once_more: bool = False) -> bool:
    """Whether the training of a run is done.

    Args:
        config: The configuration with which it is to go on.
        run: The run.
        once_more: Whether the same command has been given once more, as for a job that is started again.

    Raises:
        UserError: If a finished run is asked to go on, but not for longer; if its result is one of other settings; or
            if its checkpoint is gone.
    """
    if config.checkpoint is None:
        _check_begins(run)
        return False
    finished = run.status == "finished"
    before = (saved_values(run) or {}).get("trainer", {})
    is_own = run.checkpoint("last").resolve() == Path(config["ckpt_path"]).resolve()
    is_as_long = all(config["trainer"][name] == before.get(name) for name in ("max_epochs", "max_steps"))
    # a pruned trial that someone goes on with has come to no end of its own
    early_end_counts = is_own and is_as_long and run.status != "pruned"
    early_end_counts &= not time_is_up(config.checkpoint, before)
    done = is_done(config.checkpoint, config["trainer"], go_on=early_end_counts)
    if done and finished and not once_more:
        raise already_finished(str(run.folder), config.checkpoint, config["trainer"])
    if done and finished:
        _check_same(config, run)
    return done


def _check_begins(run: RunFolder) -> None:
    """Refuses to begin a run anew that has been trained, where its last checkpoint is gone.

    The first epoch is recorded before its checkpoint is written: a run that was killed in between begins anew.

    Raises:
        UserError: If it has been trained for longer.
    """
    epochs, best = run.record.epochs, run.checkpoint("best")
    if epochs > 1 or run.status in ("finished", "pruned"):
        instead = (
            f"resume from `ckpt_path` {best}" if best.is_file() else f"repeat it with `config` {run.folder / CONFIG}"
        )
        trained = f"{epochs} epoch{'s' if epochs != 1 else ''}"
        raise UserError(
            f"{run.folder} was trained for {trained}, but {run.checkpoint('last')} is missing: restore it, or {instead}"
        )


def _check_same(config: Config, run: RunFolder) -> None:
    """Refuses to show the result of a finished run as that of other settings.

    Raises:
        UserError: For the first setting that differs.
    """
    saved = saved_values(run) or config.values
    known = flatten(saved)
    for name, (before, now) in config.differences(saved).items():
        part = name.partition(".")[0]
        is_newer = name not in known and part in known.keys() | {"trainer", "checkpoint"}  # an option of this version
        is_found = name in run.record.found or part in FINDERS
        if matters(name) and name not in (*FREE, *SAME_TRIAL, *NOT_COMPUTED) and not (is_newer or is_found):
            raise UserError(
                f"`{name}` {now}: {run.folder} is finished, and was trained with {before}; remove it, or use a new "
                f"folder in ${RUN_FOLDER}"
            )


def time_is_up(checkpoint: dict[str, Any], trainer: Mapping[str, Any]) -> bool:
    """Whether a training has taken the time that it may take.

    Args:
        checkpoint: What its checkpoint holds.
        trainer: The fields of the trainer: `max_time`, and `callbacks`, of which one may be a Timer.
    """
    limit = _time_limit(trainer)
    elapsed = checkpoint.get("callbacks", {}).get("Timer", {}).get("time_elapsed", {}).get("train", 0)
    return limit is not None and bool(elapsed >= (Timer(limit).time_remaining() or 0))


def _time_limit(trainer: Mapping[str, Any]) -> Any:
    """What Lightning's Timer takes as its duration, None for any."""
    timers = [each for each in callback_configs({"trainer": trainer}) if str(each.get("class_path")).endswith(".Timer")]
    return (timers[0].get("init_args") or {}).get("duration") if timers else trainer.get("max_time")


def already_finished(what: str, checkpoint: dict[str, Any], trainer: Mapping[str, Any]) -> UserError:
    """The error about a training that has come to its end.

    Args:
        what: The run or the checkpoint.
        checkpoint: What the checkpoint holds.
        trainer: The fields of the trainer, by which it is at its end.
    """
    done = trained_epochs(checkpoint)
    epochs = f"{done} epoch{'s' if done != 1 else ''}"
    if time_is_up(checkpoint, trainer):
        return UserError(
            f"{what} has been trained for its `trainer.max_time` {_time_limit(trainer)}, {epochs}; to continue, give a "
            "longer time"
        )
    steps, most = checkpoint["global_step"], trainer["max_steps"]
    if most is not None and 0 <= most <= steps:
        return UserError(f"{what} has finished its {steps:,} steps; to continue, add `trainer.max_steps` {2 * steps}")
    return UserError(f"{what} has finished its {epochs}; to continue, add `trainer.max_epochs` {2 * done}")


def is_done(checkpoint: dict[str, Any], trainer: Mapping[str, Any], go_on: bool | None = None) -> bool:
    """Whether a checkpoint is one of a training that has come to its end.

    Args:
        checkpoint: What it holds.
        trainer: The fields of the trainer: `max_epochs`, `max_steps`, -1 for any number, and `max_time`.
        go_on: Whether a run is to go on from it, in which an early end counts, such as that by `EarlyStopping`; None
            where a new run is to start from it.
    """
    epochs = trained_epochs(checkpoint) if go_on is None else finished_epochs(checkpoint)
    early = checkpoint.get("callbacks", {}).get("LastCheckpoint", {}).get("stopped_early", False)
    max_epochs, max_steps = trainer["max_epochs"], trainer["max_steps"]
    enough = max_epochs is not None and 0 <= max_epochs <= epochs
    enough = enough or 0 <= max_steps <= checkpoint["global_step"] or time_is_up(checkpoint, trainer)
    return enough or bool(go_on and early)
