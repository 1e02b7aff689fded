"""What a walk-forward and a sweep have in common: many trainings of one configuration, each on one device."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from lightning_cnn.config.config import Config
from lightning_cnn.errors import UserError
from lightning_cnn.tracking.settings import matters

ONE_DEVICE = {"enable_progress_bar": False, "enable_model_summary": False, "devices": 1}


def check_parts(config: Config, part: str, quick: str, anew: str) -> None:
    """Refuses what the parts of a whole can't have.

    Args:
        config: The configuration of the whole.
        part: What a part is called: `fold`, `trial`.
        quick: Why there is no `trainer.fast_dev_run`, and what to do instead.
        anew: What to do instead of `ckpt_path`.

    Raises:
        UserError: For the first such setting.
    """
    trainer = config["trainer"]
    if trainer["fast_dev_run"]:
        raise UserError(f"`trainer.fast_dev_run` {quick}")
    if trainer["devices"] not in ("auto", "1", 1) or trainer["num_nodes"] != 1:
        raise UserError(f"`trainer.devices`: each {part} uses one device; `jobs` trains several {part}s in parallel")
    if config["ckpt_path"] is not None:
        raise UserError(f"`ckpt_path`: every {part} starts from scratch; {anew}")


def config_of_parts(config: Config, *whole: str) -> dict[str, Any]:
    """The configuration of the parts: that of the whole without the fields that only concern the whole."""
    left_out = (*whole, "experiment", "runs_dir")
    shared = {name: value for name, value in config.values.items() if name not in left_out}
    return shared | {"trainer": shared["trainer"] | ONE_DEVICE}


def check_same(
    config: Config, saved: Mapping[str, Any], free: Collection[str], begun: str, advice: Callable[[str], str]
) -> None:
    """Refuses other settings than those of the finished parts: it would join what does not belong together.

    Args:
        config: The configuration with which the whole is to go on.
        saved: The values with which it was begun.
        free: Fields that may change.
        begun: What was begun, such as a folder.
        advice: What to do instead, from the name of the field.

    Raises:
        UserError: For the first setting that differs.
    """
    for name, (before, now) in config.differences(saved).items():
        if matters(name) and name not in free:
            raise UserError(f"`{name}` {now}: {begun} was started with {before}; {advice(name)}")
